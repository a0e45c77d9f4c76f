"""Two hosts in one: each with a network namespace, a runtime folder, keys and disks of its own,
joined by a pair of veth devices. The tests' own process is on the first."""

import os
import queue
import socket
import subprocess
import threading
import time

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
        self._export = None
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

    def slow_down(self, rate):
        """To a rate as tc(8) has it ("50mbit"), in both directions."""
        for prefix in ([], self.second.prefix()):
            run(*prefix, "tc", "qdisc", "replace", "dev", "link0", "root", "tbf", "rate", rate,
                "burst", "64kb", "latency", "400ms")

    def speed_up(self):
        for prefix in ([], self.second.prefix()):
            run(*prefix, "tc", "qdisc", "del", "dev", "link0", "root")

    def cut(self):
        run("ip", "link", "set", "link0", "down")

    def join(self):
        run("ip", "link", "set", "link0", "up")

    def export(self, folder):
        """Lets the second host see a folder of the first one through sshfs; where."""
        server = socket.create_server((ADDRESSES[0], 0))
        port = server.getsockname()[1]
        mountpoint = self.second.path / "mnt"
        mountpoint.mkdir()

        def serve():
            connection, _ = server.accept()
            subprocess.run(["/usr/lib/openssh/sftp-server"], stdin=connection, stdout=connection)
            connection.close()

        self._export = (threading.Thread(target=serve), server, mountpoint)
        self._export[0].start()
        run(*self.second.prefix(), "sshfs", "-o", f"directport={port}", f"{ADDRESSES[0]}:{folder}",
            mountpoint)
        return mountpoint

    def close(self):
        if self._export:
            thread, server, mountpoint = self._export
            subprocess.run(["fusermount3", "-u", "-z", mountpoint], capture_output=True)
            thread.join()
            server.close()
        self.holder.kill()
        self.holder.wait()
        subprocess.run(["ip", "link", "del", "link0"], capture_output=True)
        self.first.close()
        self.second.close()


class Relay:
    """A port of the first host that leads to the second one's, through a long and breakable line:
    what is sent arrives `delay` seconds later, and every line can be cut. (The kernel's netem can
    delay as well, but many kernels are without it.)"""

    def __init__(self, delay=0.0):
        self.delay = delay
        self.server = socket.create_server((ADDRESSES[0], 0))
        self.address = f"{ADDRESSES[0]}:{self.server.getsockname()[1]}"
        self._sockets = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection((ADDRESSES[1], PORT), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._sockets += [near, far]
                for source, target in ((near, far), (far, near)):
                    line = queue.Queue(1000)
                    self._threads += [
                        threading.Thread(target=self._read, args=(source, line)),
                        threading.Thread(target=self._write, args=(line, target)),
                    ]
                    for thread in self._threads[-2:]:
                        thread.start()

    def _read(self, source, line):
        try:
            while data := source.recv(65536):
                line.put((time.monotonic() + self.delay, data))
        except OSError:
            pass
        line.put((0, b""))

    def _write(self, line, target):
        failed = False
        while True:
            due, data = line.get()
            if not data:
                break
            time.sleep(max(0, due - time.monotonic()))
            try:
                failed or target.sendall(data)
            except OSError:
                failed = True
        try:
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def cut(self):
        with self._lock:
            for end in self._sockets:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in self._sockets:
            end.close()
