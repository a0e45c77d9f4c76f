#!/usr/bin/env python3
"""A connection of the host's kernel is handed from one machine to its twin by `ivmm switch`.

Each machine is a network namespace with a TAP; a process of this script is its "guest process" and
carries frames between the TAP and the switch's rings. The twin gets the primary's TCP state by
TCP_REPAIR. Needs root, network namespaces and /dev/net/tun.
"""

import ctypes
import fcntl
import json
import mmap
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

IVMM = os.environ.get("IVMM", "build/release/ivmm")
RING = 2 << 20
STATE = 4096
GUEST_MAC = "02:00:00:00:00:10"
GUEST_IP, ATTACKER, BYSTANDER = "192.0.2.10", "192.0.2.7", "192.0.2.8"
PREFIX = f"ivmmsw{os.getpid()}"
PATIENCE = 60


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def in_namespace(name, *command, **more):
    return subprocess.Popen(["ip", "netns", "exec", PREFIX + name, *command], text=True, **more)


# --- The guest's process: a TAP at one end, the rings of a cable at the other. ---


class Ring:
    """One direction of a cable (net/ring.h)."""

    def __init__(self, memory, base):
        self.memory, self.base, self.position = memory, base, 0

    def word(self, offset):
        return struct.unpack_from("<I", self.memory, self.base + offset)[0]

    def set_word(self, offset, value):
        struct.pack_into("<I", self.memory, self.base + offset, value)

    def push(self, frame):
        need = (16 + len(frame) + 15) & ~15
        at = self.position % RING
        if at + need > RING:
            struct.pack_into("<I", self.memory, self.base + STATE + at, 0xFFFFFFFF)
            self.position += RING - at
            at = 0
        struct.pack_into("<I12x", self.memory, self.base + STATE + at, len(frame))
        self.memory[self.base + STATE + at + 16:self.base + STATE + at + 16 + len(frame)] = frame
        self.position += need
        self.set_word(0, self.position & 0xFFFFFFFF)

    def pop(self):
        while self.word(0) != self.position & 0xFFFFFFFF:
            at = self.position % RING
            length = struct.unpack_from("<I", self.memory, self.base + STATE + at)[0]
            if length == 0xFFFFFFFF:
                self.position += RING - at
                continue
            frame = bytes(self.memory[self.base + STATE + at + 16:
                                      self.base + STATE + at + 16 + length])
            self.position += (16 + length + 15) & ~15
            self.set_word(64, self.position & 0xFFFFFFFF)
            return frame
        return None


def connect_cable(path, port, address=GUEST_MAC):
    """The cable's memory and eventfds, and the socket that keeps it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    mac = bytes.fromhex(address.replace(":", ""))
    connection.send(struct.pack("<IHHI6s2x64s176s", 0x4D564942, 1, 1, 0, mac, port.encode(), b""))
    data, fds, _, _ = socket.recv_fds(connection, 260, 3)
    if struct.unpack_from("<H", data, 6)[0] != 2:
        raise OSError(data[84:].rstrip(b"\0").decode())
    return connection, mmap.mmap(fds[0], 2 * (STATE + RING)), fds[1], fds[2]


def bridge(path, port, tap_name, address):
    """Runs in the machine's namespace until its end."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", tap_name.encode(), 0x0002 | 0x1000))
    run("ip", "link", "set", tap_name, "address", GUEST_MAC)
    run("ip", "address", "add", address + "/24", "dev", tap_name)
    run("ip", "link", "set", tap_name, "up")
    # Kept: the switch ends the cable with the socket.
    connection, memory, wakes_switch, wakes_us = connect_cable(path, port)
    out, into = Ring(memory, 0), Ring(memory, STATE + RING)
    print("ready", flush=True)
    while connection:
        into.set_word(128, 1)
        select.select([tap, wakes_us], [], [], 0.005)
        try:
            os.read(wakes_us, 8)
        except BlockingIOError:
            pass
        while frame := into.pop():
            os.write(tap, frame)
        try:
            while True:
                out.push(os.read(tap, 65536))
                os.write(wakes_switch, struct.pack("Q", 1))
        except BlockingIOError:
            pass


# --- The servers. ---

REPAIR, REPAIR_QUEUE, QUEUE_SEQ, REPAIR_OPTIONS, TIMESTAMP, WINDOW = 19, 20, 21, 22, 24, 29
RECEIVE, SEND = 1, 2


def set_tcp(connection, option, value):
    connection.setsockopt(socket.IPPROTO_TCP, option, value)


def get_tcp(connection, option):
    return connection.getsockopt(socket.IPPROTO_TCP, option) & 0xFFFFFFFF


def save(connection):
    """The state of a quiet connection, which goes on."""
    set_tcp(connection, REPAIR, 1)
    state = {"peer": connection.getpeername()}
    for queue in (RECEIVE, SEND):
        set_tcp(connection, REPAIR_QUEUE, queue)
        state[str(queue)] = get_tcp(connection, QUEUE_SEQ)
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    state["options"], scales = info[5], info[6]
    state["scale"] = (scales & 15) | (scales >> 4) << 16
    state["mss"] = get_tcp(connection, socket.TCP_MAXSEG)
    state["timestamp"] = get_tcp(connection, TIMESTAMP)
    state["window"] = connection.getsockopt(socket.IPPROTO_TCP, WINDOW, 20).hex()
    set_tcp(connection, REPAIR, -1)
    return state


def restore(state):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    set_tcp(connection, REPAIR, 1)
    for queue in (RECEIVE, SEND):
        set_tcp(connection, REPAIR_QUEUE, queue)
        set_tcp(connection, QUEUE_SEQ, ctypes.c_int32(state[str(queue)]).value)
    connection.bind((GUEST_IP, 7))
    connection.connect(tuple(state["peer"]))
    options = struct.pack("II", 2, state["mss"])
    for bit, kind, value in ((1, 8, 0), (2, 4, 0), (4, 3, state["scale"])):
        if state["options"] & bit:
            options += struct.pack("II", kind, value)
    connection.setsockopt(socket.IPPROTO_TCP, REPAIR_OPTIONS, options)
    connection.setsockopt(socket.IPPROTO_TCP, WINDOW, bytes.fromhex(state["window"]))
    if state["options"] & 1:
        set_tcp(connection, TIMESTAMP, ctypes.c_int32(state["timestamp"]).value)
    set_tcp(connection, REPAIR, -1)
    return connection


def serve(who):
    """Answers each line with its own name in front; obeys its standard input."""
    listener = socket.create_server((GUEST_IP, 7), reuse_port=True)
    clients = {}
    print("ready", flush=True)
    while True:
        for ready in select.select([listener, sys.stdin, *clients], [], [])[0]:
            if ready is listener:
                client, _ = listener.accept()
                clients[client] = b""
            elif ready is sys.stdin:
                order = json.loads(sys.stdin.readline())
                if "save" in order:
                    client = next(c for c in clients if c.getpeername()[1] == order["save"])
                    print(json.dumps(save(client)), flush=True)
                else:
                    clients[restore(order["restore"])] = b""
                    print("{}", flush=True)
            else:
                data = ready.recv(65536)
                if not data:
                    del clients[ready]
                    continue
                *lines, clients[ready] = (clients[ready] + data).split(b"\n")
                for line in lines:
                    ready.sendall(who.encode() + b" " + line + b"\n")


def talk(source):
    """A client: sends what it is told, prints what it gets."""
    connection = socket.create_connection((GUEST_IP, 7), timeout=PATIENCE,
                                          source_address=(source, 0))
    stream = connection.makefile("rw")
    print(connection.getsockname()[1], flush=True)
    for line in sys.stdin:
        stream.write(line)
        stream.flush()
        print(stream.readline(), end="", flush=True)


class SwitchTest(unittest.TestCase):
    def setUp(self):
        self.runtime = tempfile.mkdtemp()
        os.environ["XDG_RUNTIME_DIR"] = self.runtime
        self.processes = []
        self.addCleanup(self.clean)
        for name in ("out", "primary", "clone"):
            run("ip", "netns", "add", PREFIX + name)
            run("ip", "-n", PREFIX + name, "link", "set", "lo", "up")
        self.events = os.path.join(self.runtime, "events.json")
        self.start("out", IVMM, "switch", "run", "lan", "--uplink", f"up0,host={ATTACKER}/24",
                   "--capture", self.runtime, "--events", self.events)
        run("ip", "-n", PREFIX + "out", "address", "add", BYSTANDER + "/24", "dev", "up0")
        self.path = os.path.join(self.runtime, "ivmm", "switch", "lan.cables")
        self.start("primary", sys.executable, __file__, "bridge", self.path, "web", "g0", GUEST_IP)
        run(IVMM, "switch", "add-clone", "web", "trap")
        self.primary = self.start("primary", sys.executable, __file__, "serve", "primary")

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

    def client(self, source):
        return self.start("out", sys.executable, __file__, "talk", source)

    def resets(self, namespace):
        names, values = [line.split() for line in
                         run("ip", "netns", "exec", PREFIX + namespace, "cat", "/proc/net/snmp")
                         .splitlines() if line.startswith("Tcp:")]
        counters = dict(zip(names[1:], map(int, values[1:])))
        return counters["OutRsts"] + counters["EstabResets"]

    def test_a_connection_goes_on_in_the_twin(self):
        attacker, bystander = self.client(ATTACKER), self.client(BYSTANDER)
        self.assertEqual(self.ask(attacker, "one"), "primary one")
        self.assertEqual(self.ask(bystander, "one"), "primary one")
        port = int(attacker.first)

        hold = self.call("hold", guest="web", remote=ATTACKER, ms=60000)["hold"]
        # What comes now waits, and the twin answers it.
        attacker.stdin.write("two\n")
        attacker.stdin.flush()
        time.sleep(0.3)
        state = json.loads(self.ask(self.primary, json.dumps({"save": port})))
        self.start("clone", sys.executable, __file__, "bridge", self.path, "trap", "g0", GUEST_IP)
        twin = self.start("clone", sys.executable, __file__, "serve", "twin")
        self.assertEqual(self.ask(twin, json.dumps({"restore": state})), "{}")
        report = self.call("commit", hold=hold, clone="trap")
        self.assertGreaterEqual(report["held_frames"], 1)
        self.assertEqual(report["refused_frames"], 0)
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

    def test_a_hostile_peer_loses_its_cable_alone(self):
        bystander = self.client(BYSTANDER)
        for word in (1, 0xFFFFFFFF, RING + 16, 16):
            connection, memory, wakes_switch, _ = connect_cable(self.path, "trap")
            struct.pack_into("<I", memory, STATE, 0x7FFFFFFF)  # a length that cannot be
            struct.pack_into("<I", memory, 0, word)
            os.write(wakes_switch, struct.pack("Q", 1))
            connection.settimeout(PATIENCE)
            self.assertEqual(connection.recv(1), b"")
            connection.close()
            self.assertEqual(self.ask(bystander, "still"), "primary still")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("bridge", "serve", "talk"):
        globals()[sys.argv[1]](*sys.argv[2:])
        sys.exit(0)
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        print("skipped: needs root and /dev/net/tun")
        sys.exit(77)
    unittest.main(verbosity=2)
