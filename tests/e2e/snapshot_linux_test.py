#!/usr/bin/env python3
"""A Linux server goes on from a snapshot: its shell, its clock, its network, its disk."""

import re
import time
import unittest

import fork_linux_test
import harness
import linux_guest_test


class SnapshotLinuxTest(unittest.TestCase):
    snapshot = None

    def setUp(self):
        self.workspace = harness.Workspace()
        self.addCleanup(self.workspace.close)

    def start(self, *arguments, name="linux"):
        begin = time.monotonic()
        guest = self.snapshot.start(self.workspace, *arguments, name=name)
        self.addCleanup(guest.close)
        guest.type("\n")
        guest.wait_for(self.snapshot.PROMPT)
        print(f"prompt after {time.monotonic() - begin:.2f} s", flush=True)
        return guest, harness.Shell(guest)

    def check_shell(self, shell):
        """Its clocks go on, and its kernel has noticed nothing."""
        first = float(shell.run("cat /proc/uptime").split()[0])
        begin = time.monotonic()
        shell.run("sleep 1")
        self.assertGreaterEqual(time.monotonic() - begin, 0.9)
        second = float(shell.run("cat /proc/uptime").split()[0])
        self.assertGreaterEqual(second, first + 0.9)
        self.assertLessEqual(second, first + time.monotonic() - begin + 1)
        self.assertNotRegex(shell.run("dmesg"), re.compile(fork_linux_test.TROUBLE))

    def power_off(self, guest, disk):
        guest.type("poweroff\n")
        self.assertEqual(guest.wait_end(), 0, guest.log)
        checked = linux_guest_test.fsck(disk)
        self.assertEqual(checked.returncode, 0, checked.stdout)

    def test_it_goes_on(self):
        guest, shell = self.start()
        self.check_shell(shell)
        page = harness.eventually(lambda: fork_linux_test.fetch("tap0"))
        self.assertIn("ivmm guest", page or "")
        shell.run("echo kept >/root/file; sync")

        # Of a guest that was itself restored, with what it has in memory alone.
        shell.run("secret=in-memory; cd /tmp")
        again = self.workspace.path / "again"
        done = self.workspace.ivmm("snapshot", "linux", again)
        self.assertEqual(done.returncode, 0, done.stderr)
        shell.run("echo later >/root/file; sync")
        disk = self.workspace.path / "linux.ext4"
        self.power_off(guest, disk)
        self.assertEqual(linux_guest_test.file_in(disk, "/root/file"), "later\n")

        third = harness.Restored(self.workspace, again, "third", "--net", "tap=tap3,host=10.77.0.1/24")
        self.addCleanup(third.close)
        shell = harness.Shell(third)
        self.assertIn("in-memory /tmp", shell.run("echo $secret $PWD"))
        self.assertIn("kept", shell.run("cat /root/file"))
        self.check_shell(shell)
        self.assertIn("ivmm guest", fork_linux_test.fetch("tap3") or "")
        self.power_off(third, self.workspace.path / "linux.ext4.linux-again.third")
        for name in ("third", "linux-again"):
            done = self.workspace.ivmm("rm", name)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.workspace.leftovers(), [])

    def test_twice_at_the_same_time(self):
        guests = [self.start("--net", f"tap=tap{i}", name=f"linux{i}") for i in range(2)]
        for i, (guest, shell) in enumerate(guests):
            self.check_shell(shell)
            shell.run(f"echo {i} >/root/file; sync")
        for i, (guest, shell) in enumerate(guests):
            self.assertIn(str(i), shell.run("cat /root/file"))
            self.power_off(guest, self.workspace.path / f"linux{i}.ext4")


if __name__ == "__main__":
    harness.require_kvm()
    harness.enter_own_network()
    SnapshotLinuxTest.snapshot = harness.LinuxSnapshot(harness.LinuxImages())
    harness.main()
