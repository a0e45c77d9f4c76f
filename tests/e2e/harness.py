"""What the end-to-end tests share: a private network namespace, a private runtime folder, and
guests that are started as a user starts them."""

import ctypes
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

CLONE_NEWNET = 0x40000000
SKIPPED = 77  # what CTest takes for "skipped"

IVMM = os.environ.get("IVMM", "ivmm")
GUESTS = pathlib.Path(os.environ.get("IVMM_TEST_GUESTS", "guests"))


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def require_kvm():
    if not os.path.exists("/dev/kvm"):
        skip("this host has no /dev/kvm")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        skip("/dev/kvm may not be opened by this user")


def enter_own_network():
    """Everything that this process starts from now on has a network of its own."""
    if os.geteuid() != 0:
        skip("a network namespace needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


class LinuxImages:
    """The kernel and root file system that guest-images/build has made."""

    def __init__(self):
        for variable in ("IVMM_GUEST_KERNEL", "IVMM_GUEST_ROOTFS"):
            if not os.environ.get(variable):
                skip(f"{variable} is not set; guest-images/build tells where the guest is")
        self.kernel = pathlib.Path(os.environ["IVMM_GUEST_KERNEL"])
        self.rootfs = pathlib.Path(os.environ["IVMM_GUEST_ROOTFS"])

    def copy_disk(self, folder):
        disk = pathlib.Path(folder) / "disk.ext4"
        subprocess.run(
            ["cp", "--sparse=always", self.rootfs / "rootfs.ext4", disk], check=True
        )
        return disk


class Workspace:
    """A folder for disks and sockets that is empty before and gone afterwards."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="ivmm-e2e-"))
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=str(self.path))

    def ivmm(self, *arguments, timeout=60, **options):
        """Runs a command of ivmm to its end."""
        return subprocess.run(
            [IVMM, *map(str, arguments)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,
        )

    def leftovers(self):
        """Sockets and locks of guests that should be gone."""
        return sorted(p.name for p in (self.path / "ivmm").rglob("*") if not p.is_dir())

    def close(self):
        for guest in (self.path / "ivmm").glob("*.sock"):  # a clone that a failed test has left
            self.ivmm("stop", guest.stem)
        shutil.rmtree(self.path)


class Program:
    """A program that is a guest, with its console in a buffer."""

    def __init__(self, argv, environment=None):
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*map(str, argv)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.console = ""
        self.log = ""
        self._changed = threading.Condition()
        self._open = 2  # of its outputs
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, "console")),
            threading.Thread(target=self._read, args=(self.process.stderr, "log")),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, buffer):
        while data := os.read(stream.fileno(), 65536):
            with self._changed:
                setattr(self, buffer, getattr(self, buffer) + data.decode(errors="replace"))
                self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def wait_for(self, text, seconds=120):
        """Waits until the guest has printed the text; returns the seconds since its start."""
        with self._changed:
            self._changed.wait_for(lambda: text in self.console or self._open == 0, seconds)
            if text not in self.console:
                raise AssertionError(f"no {text!r} within {seconds} s:\n{self.console}{self.log}")
        return time.monotonic() - self.started

    def type(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def wait_end(self, seconds=60):
        """The exit code of the program."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the guest if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
        self.wait_end()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


class Shell:
    """Commands that are typed into a console, and their output."""

    def __init__(self, console):
        self.console = console
        self.number = 0

    def run(self, command, seconds=60):
        self.number += 1
        mark = f"end-{self.number}-"
        since = len(self.console.console)
        # The quotes keep the echo of what is typed from looking like the answer.
        self.console.type(f"{command}; echo {mark[:-1]}''-$?\n")
        # Up to the next prompt, which must not be taken for what the next command prints.
        pattern = re.compile(rf"\n(.*?){mark}(\d+)\r\n[^\n]*# ", re.DOTALL)
        found = eventually(
            lambda: pattern.search(self.console.console[since:]), seconds)
        if not found:
            raise AssertionError(f"no answer to {command!r}: {self.console.console[since:]}")
        return found[1].replace("\r", "")


class Guest(Program):
    """`ivmm run`, or what takes its place."""

    def __init__(self, workspace, name, *arguments, command=("run",)):
        super().__init__([IVMM, *command, "--name", name, *arguments], workspace.environment)
        self.workspace = workspace
        self.name = name

    def status(self):
        done = self.workspace.ivmm("status", self.name, "--json")
        return json.loads(done.stdout)


class Restored(Guest):
    """`ivmm restore`."""

    def __init__(self, workspace, folder, name, *arguments):
        super().__init__(workspace, name, *arguments, command=("restore", folder))


class LinuxSnapshot:
    """The Linux guest of the tests at its shell prompt, with its network up: booted once, and
    restored from then on. It is kept for as long as ivmm, the images and the boot of the host are
    the same."""

    ADDRESS = "10.77.0.2"
    HOST = "10.77.0.1/24"
    PROMPT = ":~# "

    def __init__(self, images):
        self.images = images
        cache = pathlib.Path(os.environ.get("IVMM_TEST_CACHE") or tempfile.gettempdir())
        self.path = cache / f"ivmm-linux-snapshot-{self._key()}"
        if not self.path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            for old in cache.glob("ivmm-linux-snapshot-*"):
                shutil.rmtree(old)
            self._make()

    def _key(self):
        key = hashlib.sha256(pathlib.Path(shutil.which(IVMM) or IVMM).read_bytes())
        # Their names are made of what they were made of.
        key.update(f"{self.images.kernel.resolve()} {self.images.rootfs.resolve()}".encode())
        key.update(pathlib.Path("/proc/sys/kernel/random/boot_id").read_bytes())
        return key.hexdigest()[:16]

    def _make(self):
        """Under another name, so that a boot that fails leaves nothing to be restored."""
        made = pathlib.Path(tempfile.mkdtemp(dir=self.path.parent, prefix="making-"))
        workspace = Workspace()
        try:
            disk = self.images.copy_disk(made)
            with Guest(
                workspace, "linux", "--kernel", self.images.kernel / "vmlinux", "--mem", "128M",
                "--disk", disk, "--net", f"tap=tap0,host={self.HOST}", "--cmdline",
                f"root=/dev/vda rootfstype=ext4 rw quiet ivmm.ip={self.ADDRESS}/24 "
                "ivmm.gw=10.77.0.1",
            ) as guest:
                guest.wait_for(self.PROMPT)
                guest.wait_for("ivmm-guest: ready")
                done = workspace.ivmm("snapshot", "linux", made / "snapshot", "--stop")
                if done.returncode != 0:
                    raise AssertionError(done.stderr)
                guest.wait_end()
            made.rename(self.path)
        finally:
            workspace.close()
            shutil.rmtree(made, ignore_errors=True)

    def start(self, workspace, *arguments, name="linux"):
        """The guest, with a disk of its own in the workspace (NAME.ext4)."""
        disk = workspace.path / f"{name}.ext4"
        subprocess.run(["cp", "-p", "--sparse=always", self.path / "disk.ext4", disk], check=True)
        return Restored(workspace, self.path / "snapshot", name, "--disk", disk, *arguments)


def eventually(condition, seconds=30, interval=0.1):
    """The first true value of condition() within so many seconds; the last one otherwise."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(interval)
    return value


def main():
    unittest.main(verbosity=2)
