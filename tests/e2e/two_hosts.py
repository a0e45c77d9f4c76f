"""Two hosts in one: each with a network namespace, a runtime folder, keys and disks of its own,
joined by a pair of veth devices. The tests' own process is on the first."""

import json
import os
import pathlib
import subprocess
import tempfile

import harness

ADDRESSES = ("10.99.0.1", "10.99.0.2")
PORT = 7070


def run(*argv, **options):
    return subprocess.run([*map(str, argv)], check=True, capture_output=True, text=True, **options)


class Host(harness.Workspace):
    """Where ivmm runs; `namespace`: the pid of a process in its network, None: this one's."""

    def __init__(self, namespace=None):
        super().__init__()
        self.namespace = namespace
        self.keys = self.path / "keys"
        self.disks = self.path / "disks"
        self.disks.mkdir()
        done = self.ivmm("keys", self.keys)
        assert done.returncode == 0, done.stderr

    def prefix(self):
        return ["nsenter", "-t", str(self.namespace), "-n"] if self.namespace else []

    def ivmm(self, *arguments, timeout=150):
        return subprocess.run(
            [*self.prefix(), harness.IVMM, *map(str, arguments)], env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        )

    def program(self, *arguments):
        return harness.Program([*self.prefix(), harness.IVMM, *arguments], self.environment)

    def trust(self, other, name):
        key = (other.keys / "public.pem").read_bytes()
        (self.keys / "peers" / f"{name}.pem").write_bytes(key)

    def guests(self):
        """Names of what runs here."""
        return sorted(p.stem for p in (self.path / "ivmm").glob("*.sock"))


class Pair:
    """Both hosts and the link between them."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        harness.eventually(lambda: self._network() != os.readlink("/proc/self/ns/net"))
        pid = self.holder.pid
        run("ip", "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", pid)
        for prefix, address in zip(([], ["nsenter", "-t", pid, "-n"]), ADDRESSES):
            run(*prefix, "ip", "address", "add", f"{address}/24", "dev", "link0")
            run(*prefix, "ip", "link", "set", "lo", "up")
            run(*prefix, "ip", "link", "set", "link0", "up")
        self.first = Host()
        self.second = Host(pid)
        self.first.trust(self.second, "second")
        self.second.trust(self.first, "first")

    def _network(self):
        return os.readlink(f"/proc/{self.holder.pid}/ns/net")

    def shape(self, *netem):
        """Delay and rate, as `tc netem` has them, in both directions."""
        for prefix in ([], self.second.prefix()):
            run(*prefix, "tc", "qdisc", "replace", "dev", "link0", "root", "netem", *netem)

    def unshape(self):
        for prefix in ([], self.second.prefix()):
            run(*prefix, "tc", "qdisc", "del", "dev", "link0", "root")

    def cut(self):
        run("ip", "link", "set", "link0", "down")

    def join(self):
        run("ip", "link", "set", "link0", "up")

    def close(self):
        self.holder.kill()
        self.holder.wait()
        subprocess.run(["ip", "link", "del", "link0"], capture_output=True)
        self.first.close()
        self.second.close()
