#!/usr/bin/env python3
"""A connection of the host's kernel is handed from one machine to its twin by `ivmm switch`.

Each machine is a network namespace with a TAP; a process of this script is its "guest process" and
carries frames between the TAP and the switch's rings. The twin gets the primary's TCP state by
TCP_REPAIR. Needs root, network namespaces and /dev/net/tun.
"""

import ctypes
import fcntl
import json
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

from cables import RING, STATE, Cable
from peers import inside

IVMM = os.environ.get("IVMM", "build/release/ivmm")
GUEST_MAC = "02:00:00:00:00:10"
GUEST_IP, ATTACKER, BYSTANDER = "192.0.2.10", "192.0.2.7", "192.0.2.8"
GUEST_IP6, ATTACKER6 = "2001:db8::10", "2001:db8::7"
PREFIX = f"ivmmsw{os.getpid()}"
PATIENCE = 60


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def in_namespace(name, *command, **more):
    return subprocess.Popen(inside(PREFIX + name, *command), text=True, **more)


# --- The guest's process: a TAP at one end, the rings of a cable at the other. ---


def bridge(path, port, tap_name, address):
    """Runs in the machine's namespace until its end."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", tap_name.encode(), 0x0002 | 0x1000))
    run("ip", "link", "set", tap_name, "address", GUEST_MAC)
    run("ip", "address", "add", address + "/24", "dev", tap_name)
    run("ip", "link", "set", tap_name, "up")
    run("ip", "address", "add", GUEST_IP6 + "/64", "dev", tap_name, "nodad")
    cable = Cable(path, port, GUEST_MAC)
    print("ready", flush=True)
    while True:
        cable.wait(0.005, tap)
        while received := cable.receive():
            os.write(tap, received[0])
        try:
            while cable.out.room() > 2 * 65536:
                cable.send(os.read(tap, 65536))
        except BlockingIOError:
            pass


# --- The servers. ---

REPAIR, REPAIR_QUEUE, QUEUE_SEQ, REPAIR_OPTIONS, TIMESTAMP, WINDOW = 19, 20, 21, 22, 24, 29
RECEIVE, SEND = 1, 2
SIOCINQ, SIOCOUTQ, SIOCOUTQNSD = 0x541B, 0x5411, 0x894B
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
BUFFER = 16 << 20
LINES, BULK = 7, 8  # ports
BULK_BYTES = 48 << 20  # in each direction
CHUNK = 65536
PATTERN = random.Random(1).randbytes(65521)


def set_tcp(connection, option, value):
    connection.setsockopt(socket.IPPROTO_TCP, option, value)


def get_tcp(connection, option):
    return connection.getsockopt(socket.IPPROTO_TCP, option) & 0xFFFFFFFF


def length_of(connection, what):
    return struct.unpack("i", fcntl.ioctl(connection, what, bytes(4)))[0]


def save(connection):
    """The state of a connection, which stands still from then on."""
    set_tcp(connection, REPAIR, 1)
    state = {"peer": connection.getpeername(), "own": connection.getsockname(),
             "unsent": length_of(connection, SIOCOUTQNSD)}
    for queue, waiting in ((RECEIVE, SIOCINQ), (SEND, SIOCOUTQ)):
        set_tcp(connection, REPAIR_QUEUE, queue)
        length = length_of(connection, waiting)
        data = connection.recv(length, socket.MSG_PEEK) if length else b""
        assert len(data) == length
        state[str(queue)] = (get_tcp(connection, QUEUE_SEQ) - length) & 0xFFFFFFFF, data.hex()
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    state["options"], scales = info[5], info[6]
    state["scale"] = (scales & 15) | (scales >> 4) << 16
    state["mss"] = get_tcp(connection, socket.TCP_MAXSEG)
    state["timestamp"] = get_tcp(connection, TIMESTAMP)
    state["window"] = connection.getsockopt(socket.IPPROTO_TCP, WINDOW, 20).hex()
    return state


def restore(state):
    """The connection, which stands still, and what it is to send first when it goes on."""
    connection = socket.socket(socket.AF_INET6 if ":" in state["own"][0] else socket.AF_INET)
    for option, value in ((socket.SO_REUSEADDR, 1), (SO_SNDBUFFORCE, BUFFER),
                          (SO_RCVBUFFORCE, BUFFER)):
        connection.setsockopt(socket.SOL_SOCKET, option, value)
    set_tcp(connection, REPAIR, 1)
    for queue in (RECEIVE, SEND):
        set_tcp(connection, REPAIR_QUEUE, queue)
        set_tcp(connection, QUEUE_SEQ, ctypes.c_int32(state[str(queue)][0]).value)
    connection.bind(tuple(state["own"]))
    connection.connect(tuple(state["peer"]))
    options = struct.pack("II", 2, state["mss"])
    for bit, kind, value in ((1, 8, 0), (2, 4, 0), (4, 3, state["scale"])):
        if state["options"] & bit:
            options += struct.pack("II", kind, value)
    connection.setsockopt(socket.IPPROTO_TCP, REPAIR_OPTIONS, options)
    sent = bytes.fromhex(state[str(SEND)][1])
    unsent = sent[len(sent) - state["unsent"]:]
    sent = sent[:len(sent) - state["unsent"]]
    for queue, data in ((RECEIVE, bytes.fromhex(state[str(RECEIVE)][1])), (SEND, sent)):
        set_tcp(connection, REPAIR_QUEUE, queue)
        for start in range(0, len(data), CHUNK):
            connection.sendall(data[start:start + CHUNK])
    connection.setsockopt(socket.IPPROTO_TCP, WINDOW, bytes.fromhex(state["window"]))
    if state["options"] & 1:
        set_tcp(connection, TIMESTAMP, ctypes.c_int32(state["timestamp"]).value)
    return connection, unsent


def pattern(offset, length):
    start = offset % len(PATTERN)
    return (PATTERN * (2 + length // len(PATTERN)))[start:start + length]


class Lines:
    """Answers each line with its own name in front."""

    def __init__(self, connection, who, _):
        self.connection, self.who, self.rest = connection, who, b""

    def wants_to_send(self):
        return False

    def receive(self):
        data = self.connection.recv(CHUNK)
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.connection.sendall(self.who.encode() + b" " + line + b"\n")
        return bool(data)

    def progress(self):
        return [0, 0]


class Bulk:
    """Sends a pattern, and expects it from the other end; either in full."""

    def __init__(self, connection, _, progress):
        self.connection = connection
        self.sent, self.received = progress
        connection.setblocking(False)

    def wants_to_send(self):
        return self.sent < BULK_BYTES

    def send(self):
        self.sent += self.connection.send(pattern(self.sent, min(CHUNK, BULK_BYTES - self.sent)))

    def receive(self):
        data = self.connection.recv(CHUNK)
        assert data == pattern(self.received, len(data)), f"wrong bytes from {self.received} on"
        self.received += len(data)
        return bool(data)

    def progress(self):
        return [self.sent, self.received]


def serve(who):
    """Serves both of them; obeys its standard input."""
    listeners = {}
    for address, family in ((GUEST_IP, socket.AF_INET), (GUEST_IP6, socket.AF_INET6)):
        for port, kind in ((LINES, Lines), (BULK, Bulk)):
            listener = socket.create_server((address, port), family=family, reuse_port=True,
                                            backlog=256)
            listeners[listener] = kind
    clients, still = {}, {}  # by connection
    print("ready", flush=True)

    def obey(order):
        if "save" in order:
            found = next(c for c in clients if c.getpeername()[1] == order["save"])
            client = clients.pop(found)
            still[found] = client, b""
            return dict(save(found), progress=client.progress())
        if "restore" in order:
            state = order["restore"]
            connection, first = restore(state)
            kind = Bulk if state["own"][1] == BULK else Lines
            still[connection] = kind(connection, who, state["progress"]), first
        elif "go" in order:
            for connection, (client, first) in still.items():
                set_tcp(connection, REPAIR, -1)
                connection.setblocking(True)
                connection.sendall(first)
                connection.setblocking(isinstance(client, Lines))
                clients[connection] = client
            still.clear()
        return {}

    while True:
        reading = [*listeners, sys.stdin, *clients]
        writing = [c for c, client in clients.items() if client.wants_to_send()]
        readable, writable, _ = select.select(reading, writing, [])
        for ready in writable:
            clients[ready].send()
        for ready in readable:
            if ready in listeners:
                client, _ = ready.accept()
                clients[client] = listeners[ready](client, who, [0, 0])
            elif ready is sys.stdin:
                print(json.dumps(obey(json.loads(sys.stdin.readline()))), flush=True)
            elif ready in clients and not clients[ready].receive():
                del clients[ready]


def talk(source):
    """A client: sends what it is told, prints what it gets."""
    connection = socket.create_connection((GUEST_IP, LINES), timeout=PATIENCE,
                                          source_address=(source, 0))
    stream = connection.makefile("rw")
    print(connection.getsockname()[1], flush=True)
    for line in sys.stdin:
        stream.write(line)
        stream.flush()
        print(stream.readline(), end="", flush=True)


def transfer(source, address):
    """A client of Bulk: says when it is under way, and when all has come."""
    connection = socket.create_connection((address, BULK), timeout=PATIENCE,
                                          source_address=(source, 0))
    print(connection.getsockname()[1], flush=True)
    client = Bulk(connection, "", [0, 0])
    told = False
    while client.received < BULK_BYTES or client.wants_to_send():
        readable, writable, _ = select.select(
            [connection], [connection] if client.wants_to_send() else [], [], PATIENCE)
        assert readable or writable, f"nothing moves at {client.progress()}"
        if writable:
            client.send()
        if readable and not client.receive():
            break
        if not told and min(client.progress()) > BULK_BYTES // 8:
            print("under way", flush=True)
            told = True
    print(f"done {client.sent} {client.received}", flush=True)
    sys.stdin.readline()


def crowd(source, count):
    """Many connections that talk all the time; at the end of its input it tells who has answered,
    and the longest wait in seconds."""
    streams = [socket.create_connection((GUEST_IP, LINES), timeout=PATIENCE,
                                        source_address=(source, 0)).makefile("rw")
               for _ in range(int(count))]
    print("ready", flush=True)
    answered, longest, rounds = set(), 0.0, 0
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        rounds += 1
        for number, stream in enumerate(streams):
            began = time.monotonic()
            stream.write(f"{rounds}.{number}\n")
            stream.flush()
            who, _, what = stream.readline().strip().partition(" ")
            assert what == f"{rounds}.{number}", what
            answered.add(who)
            longest = max(longest, time.monotonic() - began)
    print(json.dumps({"answered": sorted(answered), "longest": longest, "rounds": rounds}),
          flush=True)


class SwitchTest(unittest.TestCase):
    def setUp(self):
        self.runtime = tempfile.mkdtemp()
        os.environ["XDG_RUNTIME_DIR"] = self.runtime
        self.processes = []
        self.addCleanup(self.clean)
        for name in ("out", "primary", "clone"):
            run("ip", "netns", "add", PREFIX + name)
            run(*inside(PREFIX + name, "ip", "link", "set", "lo", "up"))
        self.events = os.path.join(self.runtime, "events.json")
        self.start("out", IVMM, "switch", "run", "lan", "--uplink", f"up0,host={ATTACKER}/24",
                   "--capture", self.runtime, "--events", self.events)
        for address in (BYSTANDER + "/24", ATTACKER6 + "/64"):
            run(*inside(PREFIX + "out", "ip", "address", "add", address, "dev", "up0", "nodad"))
        self.path = os.path.join(self.runtime, "ivmm", "switch", "lan.cables")
        self.bridge = self.start("primary", sys.executable, __file__, "bridge", self.path, "web",
                                 "g0", GUEST_IP)
        run(IVMM, "switch", "add-clone", "web", "trap")
        self.primary = self.start("primary", sys.executable, __file__, "serve", "primary")

    def start_twin(self):
        self.start("clone", sys.executable, __file__, "bridge", self.path, "trap", "g0", GUEST_IP)
        self.twin = self.start("clone", sys.executable, __file__, "serve", "twin")

    def start(self, namespace, *command):
        process = in_namespace(namespace, *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.processes.append(process)
        process.first = process.stdout.readline().strip()
        self.assertTrue(process.first, command)
        return process

    def clean(self):
        for process in reversed(self.processes):
            process.kill()
            process.communicate()
        for name in ("out", "primary", "clone"):
            subprocess.run(["ip", "netns", "del", PREFIX + name], check=False)
        shutil.rmtree(self.runtime)

    def ask(self, process, line):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    def call(self, method, **params):
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(os.path.join(self.runtime, "ivmm", "switch", "lan.sock"))
            control.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method,
                                        "params": params}).encode() + b"\n")
            answer = json.loads(control.makefile().readline())
        self.assertIn("result", answer)
        return answer["result"]

    def hand_over(self, port, remote, meanwhile=lambda: None):
        """A connection of the primary goes on in the twin, as in a fork: nothing comes to the
        primary or leaves it while its state is taken."""
        hold = self.call("hold", guest="web", remote=remote, ms=60000, frames=4096,
                         bytes=16 << 20)["hold"]
        meanwhile()
        self.bridge.send_signal(signal.SIGSTOP)
        time.sleep(0.1)  # its kernel may have a frame at hand
        state = self.ask(self.primary, json.dumps({"save": port}))
        self.assertLess(max(json.loads(state)["progress"]), BULK_BYTES)
        self.assertEqual(self.ask(self.twin, f'{{"restore": {state}}}'), "{}")
        report = self.call("commit", hold=hold, clone="trap")
        self.bridge.send_signal(signal.SIGCONT)
        self.assertEqual(report["refused_frames"], 0)
        for machine in (self.twin, self.primary):
            self.assertEqual(self.ask(machine, '{"go": true}'), "{}")
        return report

    def client(self, source):
        return self.start("out", sys.executable, __file__, "talk", source)

    def resets(self, namespace):
        names, values = [line.split() for line in
                         run(*inside(PREFIX + namespace, "cat", "/proc/net/snmp"))
                         .splitlines() if line.startswith("Tcp:")]
        counters = dict(zip(names[1:], map(int, values[1:])))
        return counters["OutRsts"] + counters["EstabResets"]

    def test_a_connection_goes_on_in_the_twin(self):
        self.start_twin()
        attacker, bystander = self.client(ATTACKER), self.client(BYSTANDER)
        self.assertEqual(self.ask(attacker, "one"), "primary one")
        self.assertEqual(self.ask(bystander, "one"), "primary one")
        port = int(attacker.first)

        def talk_on():
            # What comes now waits, and the twin answers it.
            attacker.stdin.write("two\n")
            attacker.stdin.flush()
            time.sleep(0.3)

        report = self.hand_over(port, ATTACKER, talk_on)
        self.assertGreaterEqual(report["held_frames"], 1)
        self.assertEqual(attacker.stdout.readline().strip(), "twin two")

        long = "x" * 200_000
        for line in ("three", long, "four"):
            self.assertEqual(self.ask(attacker, line), "twin " + line)
            self.assertEqual(self.ask(bystander, line), "primary " + line)
        # A new connection of the attacker's goes to the twin as well.
        self.assertEqual(self.ask(self.client(ATTACKER), "five"), "twin five")
        for namespace in ("out", "primary", "clone"):
            self.assertEqual(self.resets(namespace), 0, namespace)

        # The clone begins nothing of its own.
        with in_namespace("clone", sys.executable, "-c",
                          "import socket; s = socket.socket(); s.settimeout(1)\n"
                          f"try: s.connect(('{BYSTANDER}', 9)); print('connected')\n"
                          "except OSError: print('contained')", stdout=subprocess.PIPE) as attempt:
            self.assertEqual(attempt.stdout.read().strip(), "contained")
        with open(self.events, encoding="utf-8") as events:
            names = {json.loads(line)["eventid"] for line in events}
        self.assertLessEqual({"ivmm.switch.hold", "ivmm.switch.divert", "ivmm.switch.contained"},
                             names)

        flows = json.loads(run(IVMM, "flows", "web", "--peer", ATTACKER, "--json"))["flows"]
        self.assertEqual({flow["owner"] for flow in flows}, {"trap"})
        run(IVMM, "undivert", "web", "--attacker", ATTACKER)
        self.assertEqual(self.ask(self.client(ATTACKER), "six"), "primary six")
        run(IVMM, "switch", "remove-port", "trap")
        self.check_capture(os.path.join(self.runtime, "trap.0001.pcapng"))

    def check_capture(self, path):
        """The capture opens in other people's tools, and tells of each verdict."""
        tool = shutil.which("tshark")
        self.assertIsNotNone(tool, "tshark is missing: scripts/install-packages test")
        lines = run(tool, "-r", path, "-T", "fields", "-e", "frame.interface_name",
                    "-e", "frame.comment", "-e", "_ws.malformed")
        rows = [line.split("\t") for line in lines.splitlines()]
        self.assertLessEqual({"uplink", "clone", "dropped"}, {row[0] for row in rows})
        self.assertIn("forward", {row[1] for row in rows})
        self.assertEqual({row[2] for row in rows}, {""})

    def transfer_through_a_fork(self, source, address):
        self.start_twin()
        client = self.start("out", sys.executable, __file__, "transfer", source, address)
        self.assertEqual(client.stdout.readline().strip(), "under way")
        self.hand_over(int(client.first), source)
        self.assertEqual(client.stdout.readline().strip(), f"done {BULK_BYTES} {BULK_BYTES}")
        for namespace in ("out", "primary", "clone"):
            self.assertEqual(self.resets(namespace), 0, namespace)
        owners = {flow["owner"] for flow in
                  json.loads(run(IVMM, "flows", "web", "--peer", source, "--json"))["flows"]
                  if flow["protocol"] == "tcp"}
        self.assertEqual(owners, {"trap"})

    def test_a_transfer_in_both_directions_goes_on_and_bystanders_notice_nothing(self):
        crowd_ = self.start("out", sys.executable, __file__, "crowd", BYSTANDER, "100")
        self.transfer_through_a_fork(ATTACKER, GUEST_IP)
        report = json.loads(self.ask(crowd_, "enough"))
        self.assertEqual(report["answered"], ["primary"])
        self.assertGreater(report["rounds"], 1)
        self.assertLess(report["longest"], 5)

    def test_a_transfer_over_ipv6_goes_on(self):
        self.transfer_through_a_fork(ATTACKER6, GUEST_IP6)

    def test_a_port_that_is_in_use_is_nobody_elses(self):
        bystander = self.client(BYSTANDER)
        for port, mac, why in (("web", GUEST_MAC, "in use"),
                               ("web", "02:00:00:00:00:66", "another address"),
                               ("trap", "02:00:00:00:00:66", "another address"),
                               ("more", GUEST_MAC, "another guest has it"),
                               ("up0", GUEST_MAC, "not a port for guests"),
                               ("", GUEST_MAC, "which port")):
            with self.subTest(port=port, mac=mac):
                with self.assertRaisesRegex(ConnectionRefusedError, why):
                    Cable(self.path, port, mac)
                self.assertEqual(self.ask(bystander, "still"), "primary still")
        first = Cable(self.path, "trap", GUEST_MAC)
        with self.assertRaisesRegex(ConnectionRefusedError, "in use"):
            Cable(self.path, "trap", GUEST_MAC)
        first.close()

    def test_a_hostile_peer_loses_its_cable_alone(self):
        bystander = self.client(BYSTANDER)
        for word in (1, 0xFFFFFFFF, RING + 16, 16):
            cable = Cable(self.path, "trap", GUEST_MAC)
            struct.pack_into("<I", cable.memory, STATE, 0x7FFFFFFF)  # a length that cannot be
            cable.out.set_word(0, word)
            cable.wake_switch()
            cable.socket.settimeout(PATIENCE)
            self.assertEqual(cable.socket.recv(1), b"")
            cable.close()
            self.assertEqual(self.ask(bystander, "still"), "primary still")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("bridge", "serve", "talk", "transfer", "crowd"):
        globals()[sys.argv[1]](*sys.argv[2:])
        sys.exit(0)
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        print("skipped: needs root and /dev/net/tun")
        sys.exit(77)
    unittest.main(verbosity=2)
