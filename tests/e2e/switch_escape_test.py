#!/usr/bin/env python3
"""What a clone tries over its cable, and that none of it gets out of `ivmm switch`.

This script is the primary's, another guest's and the clone's process, and speaks the rings' protocol
itself, as who has taken over a clone would. A process in the uplink's namespace tells of every frame
that comes out there. Needs root, network namespaces and /dev/net/tun.
"""

import ipaddress
import json
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

from cables import NO_OFFLOADS, Cable
from peers import inside

IVMM = os.environ.get("IVMM", "build/release/ivmm")
NAMESPACE = f"ivmmesc{os.getpid()}"
PATIENCE = 30
UPLINK = "up0"
GUEST_MAC, OTHER_MAC, GATEWAY_MAC = "02:00:00:00:00:10", "02:00:00:00:00:20", "02:00:00:00:00:fe"
EVERYBODY, STRANGER_MAC = "ff:ff:ff:ff:ff:ff", "02:09:09:09:09:09"
GUEST, OTHER, GATEWAY = "192.0.2.10", "192.0.2.20", "192.0.2.1"
GUEST6, GATEWAY6 = "2001:db8::10", "2001:db8::1"
ATTACKER, ELSEWHERE, ELSEWHERE6 = "198.51.100.7", "203.0.113.80", "2001:db8:f::80"
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
SYN, ACK = 2, 16
POLICY = """
[[rule]]
protocol = "udp"
ports = [53]
verdict = "limit"
flows_per_hour = 3
"""


# --- Frames. ---


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def packed(address):
    return ipaddress.ip_address(address).packed


def ethernet(kind, payload, source=GUEST_MAC, to=GATEWAY_MAC, tags=b""):
    return mac(to) + mac(source) + tags + struct.pack(">H", kind) + payload


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol, payload, source=GUEST, to=ELSEWHERE, fragment=0, options=b""):
    length = 20 + len(options)
    header = struct.pack(">BBHHHBBH", 0x40 | length // 4, 0, length + len(payload), 1, fragment, 64,
                         protocol, 0) + packed(source) + packed(to) + options
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload


def ipv6(protocol, payload, source=GUEST6, to=ELSEWHERE6):
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 255) + packed(source) + packed(to) + payload


def tcp(source, to, flags=SYN, payload=b""):
    return struct.pack(">HHIIBBHHH", source, to, 1, 1, 0x50, flags, 1024, 0, 0) + payload


def udp(source, to, payload=b""):
    return struct.pack(">HHHH", source, to, 8 + len(payload), 0) + payload


def arp(operation, sender, target, target_mac="00:00:00:00:00:00"):
    return (struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + mac(GUEST_MAC) + packed(sender) +
            mac(target_mac) + packed(target))


def neighbour(kind, target):
    """A neighbour message with a link address of the clone's own."""
    return struct.pack(">BBHI", kind, 0, 0, 0x20000000) + packed(target) + b"\x02\x01" + mac(GUEST_MAC)


def v4(*args, to_mac=GATEWAY_MAC, source_mac=GUEST_MAC, tags=b"", **more):
    return ethernet(0x0800, ipv4(*args, **more), source_mac, to_mac, tags)


def v6(*args, to_mac=GATEWAY_MAC, **more):
    return ethernet(0x86DD, ipv6(*args, **more), to=to_mac)


def gso(kind=1, size=1448, start=34, offset=16, flags=1):
    return struct.pack("<BBHHHHH", flags, kind, 54, size, start, offset, 0)


# --- Who listens at the far end of the uplink. ---


def watch():
    """Prints each frame that comes out of the uplink, and sends those of its standard input."""
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    link.bind((UPLINK, 0))
    print("ready", flush=True)
    while True:
        for ready in select.select([link, sys.stdin], [], [])[0]:
            if ready is link:
                frame, about = link.recvfrom(1 << 17)
                if about[2] != socket.PACKET_OUTGOING:
                    print(frame.hex(), flush=True)
            else:
                link.send(bytes.fromhex(sys.stdin.readline()))


# What is tried: the frames, each alone or with its virtio-net header, and the events of which one at
# least tells of it.
ESCAPES = {
    "another link address": ([v4(TCP, tcp(1, 80), source_mac=STRANGER_MAC)], {"spoofed"}),
    "the gateway's link address": ([v4(TCP, tcp(1, 80), source_mac=GATEWAY_MAC)], {"spoofed"}),
    "another address": ([v4(TCP, tcp(1, 80), source="192.0.2.99"),
                         v4(UDP, udp(1, 53), source=GATEWAY)], {"contained", "spoofed"}),
    "a hop to a VLAN": ([v4(TCP, tcp(1, 80), tags=struct.pack(">HH", 0x8100, 7))],
                        {"contained", "spoofed"}),
    "a hop by two tags": ([v4(UDP, udp(1, 53), tags=struct.pack(">HHHH", 0x88A8, 1, 0x8100, 7))],
                          {"contained", "spoofed"}),
    "three tags": ([v4(UDP, udp(1, 53), tags=struct.pack(">HHHHHH", *[0x8100, 1] * 3))],
                   {"contained"}),
    "ARP: it is the gateway": ([ethernet(0x0806, arp(2, GATEWAY, GATEWAY), to=EVERYBODY),
                                ethernet(0x0806, arp(2, GATEWAY, OTHER, OTHER_MAC), to=OTHER_MAC),
                                ethernet(0x0806, arp(1, GATEWAY, GATEWAY), to=EVERYBODY)],
                               {"suppressed"}),
    "ARP: it has the guest's address": ([ethernet(0x0806, arp(1, GUEST, GUEST), to=EVERYBODY)],
                                        {"suppressed"}),
    "ND: it is the gateway": ([v6(ICMP6, neighbour(136, GATEWAY6), source=GATEWAY6, to="ff02::1",
                                  to_mac="33:33:00:00:00:01")], {"suppressed"}),
    "ND: it is a router": ([v6(ICMP6, neighbour(134, GATEWAY6), source="fe80::10", to="ff02::1",
                               to_mac="33:33:00:00:00:01")], {"suppressed"}),
    "MLD and IGMP": ([v6(ICMP6, struct.pack(">BBHI", 143, 0, 0, 0), to="ff02::16",
                         to_mac="33:33:00:00:00:16"),
                      v4(2, struct.pack(">BBH4s", 0x16, 0, 0, packed("224.0.0.251")),
                         to="224.0.0.251", to_mac="01:00:5e:00:00:fb")], {"suppressed"}),
    "IPv6 extension headers": ([v6(kind, struct.pack(">BB6x", UDP, 0) + udp(1, 53))
                                for kind in (0, 43, 60, 135)], {"contained"}),
    "an IPv6 fragment header": ([v6(44, struct.pack(">BBHI", UDP, 0, 0, 1) + udp(1, 53))],
                                {"contained"}),
    "IPv6": ([v6(TCP, tcp(1, 80)), v6(UDP, udp(1, 53))], {"contained"}),
    "IPv4 options": ([v4(UDP, udp(1, 53), options=b"\x83\x07\x04" + packed(ATTACKER) + b"\0")],
                     {"contained"}),
    "tiny fragments": ([v4(TCP, tcp(1, 80)[:8], fragment=0x2000),
                        v4(TCP, tcp(1, 80)[8:], fragment=1),
                        v4(TCP, tcp(22, 1000, ACK)[:8], to=ATTACKER, fragment=0x2000),
                        v4(TCP, tcp(22, 1000, ACK)[8:], to=ATTACKER, fragment=1)], {"contained"}),
    "GSO that lies": ([(v4(TCP, tcp(22, 1000, ACK, b"x" * 3000), to=ATTACKER), vnet)
                       for vnet in (gso(size=1), gso(start=60000), gso(offset=2), gso(kind=4),
                                    gso(kind=3), gso(flags=0), gso(start=14))], {"malformed"}),
    "no frame": ([b"", b"\2", mac(EVERYBODY) + mac(GUEST_MAC)], {"malformed"}),
    "a broadcast storm": ([v4(UDP, udp(1, 9), to="255.255.255.255", to_mac=EVERYBODY)] * 2000,
                          {"contained"}),
    "to groups": ([v4(UDP, udp(5353, 5353), to="224.0.0.251", to_mac="01:00:5e:00:00:fb"),
                   v6(UDP, udp(5353, 5353), to="ff02::fb", to_mac="33:33:00:00:00:fb")],
                  {"contained"}),
    "raw frames to the gateway": ([ethernet(kind, bytes(64)) for kind in (0x88B5, 0x88CC, 0x888E,
                                                                         0x0026, 0x8863)],
                                  {"contained"}),
    "tunnels": ([v4(protocol, bytes(64)) for protocol in (4, 41, 47, 50, 132)], {"contained"}),
    "a DNS tunnel": ([v4(UDP, udp(1024 + i, 53, b"secret"), to=f"203.0.113.{i + 1}")
                      for i in range(50)], {"contained"}),
    "pings": ([v4(ICMP, struct.pack(">BBHHH", 8, 0, 0, 1, 1) + bytes(32))], {"contained"}),
    "to the primary": ([v4(TCP, tcp(1, 22), to=GUEST, to_mac=to) for to in (GUEST_MAC, GATEWAY_MAC)],
                       {"contained"}),
    "to another guest": ([v4(TCP, tcp(1, 22), to=OTHER, to_mac=OTHER_MAC),
                          v4(UDP, udp(1, 53), to=OTHER, to_mac=GATEWAY_MAC)], {"contained"}),
    "to private networks and metadata": ([v4(TCP, tcp(1, 80), to=to) for to in
                                          ("10.0.0.1", "192.168.1.1", "169.254.169.254",
                                           "127.0.0.1", "100.64.0.1")], {"contained"}),
    "to a link address that nobody knows": ([v4(UDP, udp(1, 53), to_mac=STRANGER_MAC)],
                                            {"contained"}),
    "the primary's connection with somebody else": ([v4(TCP, tcp(22, 2000, ACK, b"mine"))],
                                                    {"stale"}),
    "a scan without SYN": ([v4(TCP, tcp(1, port, ACK)) for port in (80, 443)], {"stale"}),
    "a complaint about another's flow": (
        [v4(ICMP, struct.pack(">BBHI", 3, 3, 0, 0) + ipv4(TCP, tcp(2000, 22), ELSEWHERE, GUEST))],
        {"contained"}),
    "a DHCP server's offer": ([v4(UDP, udp(67, 68, bytes(240)), to="255.255.255.255",
                                  to_mac=EVERYBODY)], {"contained"}),
    "a DHCP client's question": ([v4(UDP, udp(68, 67, bytes(240)), source="0.0.0.0",
                                     to="255.255.255.255", to_mac=EVERYBODY)],
                                 {"contained", "spoofed", "suppressed"}),
}


class Escape(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        os.environ["XDG_RUNTIME_DIR"] = self.folder
        self.processes, self.cables = [], []
        self.addCleanup(self.clean)
        self.marks, self.heard = 0, b""
        subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
        # Nothing but what this test sends is to be heard.
        self.start("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; echo done")
        self.events = os.path.join(self.folder, "events.json")
        self.start(IVMM, "switch", "run", "lan", "--uplink", UPLINK, "--events", self.events)
        self.far_end = self.start(sys.executable, __file__, "watch")
        self.guest = self.connect("web", GUEST_MAC)
        self.other = self.connect("db", OTHER_MAC)
        policy = os.path.join(self.folder, "policy.toml")
        with open(policy, "w", encoding="utf-8") as file:
            file.write(POLICY)
        self.ivmm("switch", "add-clone", "web", "trap")
        self.ivmm("switch", "add-clone", "web", "limited", "--policy", policy)
        self.clones = {name: self.connect(name, GUEST_MAC) for name in ("trap", "limited")}
        self.begin()

    def connect(self, port, link_address):
        self.cables.append(Cable(os.path.join(self.folder, "ivmm", "switch", "lan.cables"), port,
                                 link_address))
        return self.cables[-1]

    def start(self, *command):
        # pylint: disable=consider-using-with  # it is waited for in clean()
        process = subprocess.Popen(inside(NAMESPACE, *command), text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.processes.append(process)
        self.assertTrue(process.stdout.readline().strip(), command)
        return process

    def clean(self):
        for cable in self.cables:
            cable.close()
        for process in reversed(self.processes):
            process.kill()
            process.communicate()
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False)
        shutil.rmtree(self.folder)

    def ivmm(self, *words):
        subprocess.run([IVMM, *words], check=True, capture_output=True, timeout=PATIENCE)

    def come(self, frame):
        """Lets a frame come from outside."""
        self.far_end.stdin.write(frame.hex() + "\n")
        self.far_end.stdin.flush()

    def next_of(self, cable):
        deadline = time.monotonic() + PATIENCE
        while not (received := cable.receive()):
            self.assertLess(time.monotonic(), deadline, "no frame has come")
            cable.wait(0.1)
        return received[0]

    def seen_outside(self):
        while b"\n" not in self.heard:
            self.assertTrue(select.select([self.far_end.stdout], [], [], PATIENCE)[0], "nothing came out")
            self.heard += os.read(self.far_end.stdout.fileno(), 1 << 20)
        line, _, self.heard = self.heard.partition(b"\n")
        return bytes.fromhex(line.decode())

    def begin(self):
        """The gateway and both guests are known, and two strangers have a connection to the
        primary: one of them is diverted then."""
        hello = v4(UDP, udp(9, 9), to_mac=EVERYBODY)
        self.guest.send(hello)
        self.other.send(ethernet(0x0800, ipv4(UDP, udp(9, 9), OTHER), OTHER_MAC, EVERYBODY))
        for _ in range(2):
            self.seen_outside()
        for cable in (self.guest, self.other):
            cable.send(v6(UDP, udp(9, 9)) if cable is self.guest else
                       ethernet(0x0800, ipv4(UDP, udp(9, 9), OTHER), OTHER_MAC, GATEWAY_MAC))
            self.seen_outside()
        for source, port in ((ATTACKER, 1000), (ELSEWHERE, 2000)):
            opens = ethernet(0x0800, ipv4(TCP, tcp(port, 22), source, GUEST), GATEWAY_MAC, GUEST_MAC)
            self.come(opens)
            while self.next_of(self.guest) != opens:
                pass
            self.guest.send(v4(TCP, tcp(22, port, SYN | ACK), to=source))
            self.seen_outside()
        self.empty(self.other)
        self.empty(self.guest)

    def empty(self, cable):
        frames = []
        while received := cable.receive():
            frames.append(received[0])
        return frames

    def mark(self, clone):
        """A frame that may leave: when it has, all that the clone had sent before is decided."""
        self.marks += 1
        frame = v4(TCP, tcp(22, 1000, ACK, f"mark {self.marks}".encode()), to=ATTACKER)
        self.clones[clone].send(frame)
        return frame

    def told(self, clone, since):
        """The kinds of events about a clone after so many of them."""
        with open(self.events, encoding="utf-8") as file:
            events = [json.loads(line) for line in file]
        return ({event["eventid"].removeprefix("ivmm.switch.") for event in events[since:]
                 if event["port"] == clone}, len(events))

    def attempt(self, clone, frames):
        """What has come out of the uplink, and of the cables of the guests."""
        cable = self.clones[clone]
        for number, frame in enumerate(frames):
            frame, vnet = frame if isinstance(frame, tuple) else (frame, NO_OFFLOADS)
            cable.send(frame, vnet)
            if number % 100 == 99:
                time.sleep(0.01)  # the ring is not what is tested
        mark, outside = self.mark(clone), []
        while (frame := self.seen_outside()) != mark:
            outside.append(frame)
        return outside, self.empty(self.guest) + self.empty(self.other)

    def test_nothing_gets_out(self):
        self.ivmm("divert", "trap", "--attacker", ATTACKER)
        events = self.told("trap", 0)[1]
        for name, (frames, expected) in ESCAPES.items():
            with self.subTest(name):
                # Of one kind at most 10 a second are told.
                time.sleep(1.05)
                outside, inside = self.attempt("trap", frames)
                self.assertEqual(outside, [])
                self.assertEqual(inside, [])
                kinds, events = self.told("trap", events)
                self.assertTrue(kinds & expected, f"no event of {expected}: {kinds}")
                self.assertLessEqual(kinds, {"contained", "spoofed", "malformed", "suppressed", "stale"})

    def test_only_what_the_policy_allows_gets_out(self):
        self.ivmm("divert", "limited", "--attacker", ATTACKER)
        for name, (frames, _) in ESCAPES.items():
            if name == "a DNS tunnel":
                continue
            with self.subTest(name):
                outside, inside = self.attempt("limited", [
                    frame for frame in frames if isinstance(frame, tuple) or b"\x00\x35" not in frame])
                self.assertEqual((outside, inside), ([], []))
        time.sleep(1.05)
        events = self.told("limited", 0)[1]
        outside, inside = self.attempt("limited", ESCAPES["a DNS tunnel"][0])
        self.assertEqual(outside, ESCAPES["a DNS tunnel"][0][:3])
        self.assertEqual(inside, [])
        self.assertLessEqual({"limit", "contained"}, self.told("limited", events)[0])
        # Their answers are the clone's; what nobody has asked for is not.
        self.empty(self.clones["limited"])
        answer = ethernet(0x0800, ipv4(UDP, udp(53, 1024, b"answer"), "203.0.113.1", GUEST),
                          GATEWAY_MAC, GUEST_MAC)
        self.come(answer)
        self.assertEqual(self.next_of(self.clones["limited"]), answer)
        self.assertEqual(self.empty(self.guest), [])


if __name__ == "__main__":
    if sys.argv[1:] == ["watch"]:
        watch()
        sys.exit(0)
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        print("skipped: needs root and /dev/net/tun")
        sys.exit(77)
    unittest.main(verbosity=2)
