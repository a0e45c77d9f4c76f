#!/usr/bin/env python3
"""Wrong usage and unusable hosts: one clear line, the right exit code, nothing left behind."""

import json
import os
import pathlib
import signal
import subprocess
import unittest

import harness

FAILED = 1
USAGE = 2


def with_devices(change):
    """Runs the command that follows where /dev is changed, for it alone."""
    return ["unshare", "-m", "--propagation", "unchanged", "sh", "-c",
            f'mount --make-rprivate /dev && {change} && exec "$0" "$@"']


class UsageTest(unittest.TestCase):
    def setUp(self):
        self.workspace = harness.Workspace()
        self.addCleanup(self.workspace.close)
        self.kernel = harness.GUESTS / "hello.elf"

    def file(self, name, content=b"", size=None):
        path = self.workspace.path / name
        path.write_bytes(content)
        if size is not None:
            os.truncate(path, size)
        return path

    def refuse(self, code, *reasons, arguments=(), kernel=None, runner=()):
        """`ivmm run` must end with this code and one line that holds the reasons."""
        command = [*runner, harness.IVMM, "run", "--name", "x", "--no-acpi",
                   "--kernel", kernel or self.kernel, *arguments]
        done = subprocess.run(
            [str(word) for word in command], env=self.workspace.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        for reason in reasons:
            self.assertIn(reason, done.stderr)
        self.assertEqual(self.workspace.leftovers(), [])

    def test_no_kvm(self):
        self.refuse(USAGE, "/dev/kvm", "no KVM", runner=with_devices("mount -t tmpfs none /dev"))

    def test_kvm_that_is_no_kvm(self):
        self.refuse(USAGE, "/dev/kvm", runner=with_devices("mount --bind /dev/null /dev/kvm"))

    def test_no_permission(self):
        # Root may open everything unless it gives that power away.
        runner = with_devices("mount -t tmpfs none /dev && mknod -m 0 /dev/kvm c 10 232")
        powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        self.refuse(USAGE, "/dev/kvm", "Permission denied", runner=[*runner, *powerless])

    def test_kernel(self):
        self.refuse(USAGE, "nowhere", kernel="/nowhere/vmlinux")
        self.refuse(USAGE, str(self.workspace.path), kernel=self.workspace.path)
        self.refuse(USAGE, "empty", kernel=self.file("empty"))
        self.refuse(USAGE, "text", kernel=self.file("text", b"#!/bin/sh\n" * 1000))
        whole = pathlib.Path(self.kernel).read_bytes()
        for part in (3, 40, 64, 200, 5000):
            self.refuse(USAGE, "truncated", kernel=self.file("truncated", whole[:part]))

    def test_disk(self):
        self.refuse(USAGE, "nowhere", arguments=["--disk", "/nowhere/disk"])
        self.refuse(USAGE, "directory", arguments=["--disk", self.workspace.path])
        self.refuse(USAGE, "empty", arguments=["--disk", self.file("empty")])
        self.refuse(USAGE, "512", arguments=["--disk", self.file("odd", size=1000)])

    def test_memory_and_cpus(self):
        self.refuse(USAGE, "memory", arguments=["--mem", "0"])
        self.refuse(USAGE, "memory", arguments=["--mem", "100T"])
        self.refuse(USAGE, "12Q", arguments=["--mem", "12Q"])
        self.refuse(USAGE, "vCPUs", arguments=["--cpus", "0"])
        self.refuse(USAGE, "vCPUs", arguments=["--cpus", "9"])

    def test_tap(self):
        subprocess.run(["ip", "tuntap", "add", "taken", "mode", "tap"], check=True)
        self.addCleanup(subprocess.run, ["ip", "link", "del", "taken"], check=True)
        self.refuse(USAGE, "taken", "exists", arguments=["--net", "tap=taken"])
        self.refuse(USAGE, "missing", arguments=["--net", "tap=missing,existing"])
        self.refuse(USAGE, "a-name-that-is-too-long",
                    arguments=["--net", "tap=a-name-that-is-too-long"])
        shown = subprocess.run(["ip", "link", "show", "missing"], capture_output=True)
        self.assertNotEqual(shown.returncode, 0, "a TAP was left behind")

    def test_a_switch_of_its_own(self):
        subprocess.run(["ip", "tuntap", "add", "taken", "mode", "tap"], check=True)
        self.addCleanup(subprocess.run, ["ip", "link", "del", "taken"], check=True)
        self.refuse(USAGE, "taken", "exists",
                    arguments=["--net", "switch=own,tap=taken"])
        self.refuse(USAGE, "host=", arguments=["--net", "switch=own,host=10.99.0.1/24"])
        for name in ("one", "two"):
            done = self.workspace.ivmm(
                "run", "-d", "--name", name, "--no-acpi", "--kernel", harness.GUESTS / "hello.elf",
                "--cmdline", "spin=1", "--net", "switch=own,tap=up1,host=10.99.0.1/24")
            self.assertEqual(done.returncode, 0, done.stderr)
        ports = json.loads(self.workspace.ivmm("switch", "status", "own", "--json").stdout)["ports"]
        self.assertEqual({port["name"] for port in ports}, {"up1", "one", "two"})
        for name in ("one", "two"):
            self.assertEqual(self.workspace.ivmm("stop", name).returncode, 0)
        # Nobody uses it any more.
        self.assertTrue(harness.eventually(
            lambda: self.workspace.ivmm("switch", "status", "own").returncode == FAILED, 60))
        shown = subprocess.run(["ip", "link", "show", "up1"], capture_output=True)
        self.assertNotEqual(shown.returncode, 0, "a TAP was left behind")
        self.assertEqual(self.workspace.leftovers(), [])

    def test_options(self):
        for arguments in (["run", "--frobnicate"], ["frobnicate"], [], ["status"]):
            done = self.workspace.ivmm(*arguments)
            self.assertEqual(done.returncode, USAGE, arguments)
        done = self.workspace.ivmm("status", "nobody")
        self.assertEqual(done.returncode, FAILED)
        self.assertIn("nobody", done.stderr)

    def test_faults_of_the_guest(self):
        for kind, reason in (("triple", "triple fault"), ("panic", "panicked")):
            self.refuse(FAILED, reason, kernel=harness.GUESTS / "fault.elf",
                        arguments=["--cmdline", f"kind={kind}"])
        self.refuse(FAILED, "RIP 0x", "64-bit mode", "instruction ",
                    kernel=harness.GUESTS / "fault.elf", arguments=["--cmdline", "kind=emul"])


class LifeTest(unittest.TestCase):
    """What is left when a guest ends in unusual ways: nothing."""

    def setUp(self):
        self.workspace = harness.Workspace()
        self.addCleanup(self.workspace.close)

    def start(self, name="life"):
        guest = harness.Guest(
            self.workspace, name, "--no-acpi", "--kernel", harness.GUESTS / "hello.elf",
            "--net", "tap=life0", "--cmdline", "spin=1 interval_ms=100",
        )
        self.addCleanup(guest.close)
        guest.wait_for("tick=2")
        return guest

    def gone(self):
        return self.workspace.leftovers() == [] and subprocess.run(
            ["ip", "link", "show", "life0"], capture_output=True).returncode != 0

    def test_a_second_guest_of_the_same_name(self):
        guest = self.start()
        done = self.workspace.ivmm("run", "--name", "life", "--kernel",
                                   harness.GUESTS / "hello.elf")
        self.assertEqual(done.returncode, FAILED)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn("life", done.stderr)
        self.assertEqual(guest.status()["state"], "running")

    def test_signals_end_it(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            guest = self.start()
            guest.process.send_signal(number)
            guest.wait_end()
            self.assertTrue(harness.eventually(self.gone, 10), number)

    def test_kill_of_the_terminal_ends_it(self):
        guest = self.start()
        guest.process.kill()
        guest.wait_end()
        self.assertTrue(harness.eventually(self.gone, 10))

    def test_kill_of_the_guest_process_is_told_and_leaves_its_name_free(self):
        guest = self.start()
        os.kill(guest.status()["pid"], signal.SIGKILL)
        self.assertEqual(guest.wait_end(), FAILED)
        self.assertTrue(harness.eventually(
            lambda: "life" not in self.workspace.ivmm("ls").stdout, 10))
        self.start().close()
        self.assertTrue(harness.eventually(self.gone, 10))

    def test_in_the_background(self):
        done = self.workspace.ivmm(
            "run", "-d", "--name", "back", "--no-acpi", "--kernel",
            harness.GUESTS / "hello.elf", "--cmdline", "spin=1 interval_ms=50")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("back", self.workspace.ivmm("ls").stdout)
        self.assertEqual(self.workspace.ivmm("stop", "back").returncode, 0)
        self.assertTrue(harness.eventually(lambda: self.workspace.leftovers() == [], 10),
                        self.workspace.leftovers())


if __name__ == "__main__":
    harness.require_kvm()
    harness.enter_own_network()
    harness.main()
