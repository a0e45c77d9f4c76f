"""One of everything that ivmm runs on a host, for tests of what is shown of it: a guest with a
standby and clones, a switch with an attacker's flows, an overlay, a watch."""

import http.client
import re
import socket
import struct
import subprocess
import unittest

import harness

GUEST, ATTACKER = "192.0.2.10", "198.51.100.7"
ETH_P_ALL = 3


def syn(mac, port):
    """What the attacker opens a connection to port 22 of the guest with."""
    segment = struct.pack(">HHIIBBHHH", port, 22, 1, 0, 0x50, 0x02, 1024, 0, 0)
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 1, 0, 64, 6, 0,
                         socket.inet_aton(ATTACKER), socket.inet_aton(GUEST))
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
    return bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("020000000020") + b"\x08\x00" + \
        header + segment


class LiveSite:
    """Needs root and a network namespace of its own. Everything of it ends with close()."""

    def __init__(self):
        self.workspace = harness.Workspace()
        self.programs = []
        self.mnt = self.workspace.path / "mnt"

    def ivmm(self, *arguments):
        """What a command prints that must succeed."""
        done = self.workspace.ivmm(*arguments)
        if done.returncode != 0:
            raise AssertionError(f"ivmm {' '.join(map(str, arguments))}: {done.stderr}")
        return done.stdout

    def run(self, *arguments, until="runs"):
        """A command that goes on, as soon as it has printed a text."""
        program = harness.Program([harness.IVMM, *arguments], self.workspace.environment)
        self.programs.append(program)
        program.wait_for(until)
        return program

    def start(self):
        for name in ("mnt", "lower"):
            (self.workspace.path / name).mkdir()
        self.ivmm("overlay", "mount", "-o",
                  f"lower={self.workspace.path / 'lower'},upper={self.workspace.path / 'store'}",
                  self.mnt)
        self.switch = self.run("switch", "run", "lan", "--uplink", "up0,host=192.0.2.1/24")
        self.main = self.run(
            "run", "--name", "main", "--no-acpi", "--kernel", harness.GUESTS / "dirty.elf",
            "--mem", "64M", "--net", "switch=lan", "--cmdline",
            "op=verify start=8 size=48 fill=1 rate=100 stride=0", until="generation=")
        rules = self.workspace.path / "rules.toml"
        rules.write_text('[[rule]]\nname = "rest"\naction = "log"\n')
        self.run("watch", rules, "--guest", "main", "--eve", self.workspace.path / "eve.sock")
        self.ivmm("standby", "main")

    def fork(self, clone):
        self.ivmm("fork", "main", "--name", clone, "--attacker", ATTACKER, "--lifetime",
                  "3600", "--memory-limit", "1G")

    def attack(self, connections):
        """The attacker opens so many."""
        ports = self.workspace.ivmm("switch", "status", "--json").stdout
        mac = next(port["mac"] for port in harness.json.loads(ports)["ports"]
                   if port["name"] == "main")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as raw:
            raw.bind(("up0", 0))
            for number in range(connections):
                raw.send(syn(mac, 10_000 + number))

    def close(self):
        runtime = self.workspace.path / "ivmm"
        for record in runtime.glob("*.clone"):
            self.workspace.ivmm("rm", "--force", record.stem)
        while self.programs:
            self.programs.pop().close()
        if subprocess.run(["mountpoint", "-q", self.mnt], check=False).returncode == 0:
            self.workspace.ivmm("overlay", "umount", "--force", self.mnt)
        self.workspace.close()


def port_of(server):
    """Where a program that serves pages says that it listens."""
    return int(re.search(r":(\d+)/", server.console)[1])


class LiveTest(unittest.TestCase):
    """A site with one clone, "trap", for all tests of a class."""

    @classmethod
    def setUpClass(cls):
        cls.site = LiveSite()
        cls.addClassCleanup(cls.site.close)
        cls.site.start()
        cls.site.fork("trap")

    def get(self, port, path, method="GET", **headers):
        """Status, headers and text of the answer of a server on this host."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.addCleanup(connection.close)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
