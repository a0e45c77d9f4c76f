#!/usr/bin/env python3
"""A Linux server is forked while it works, with its disk on an overlay: it and its clone go on."""

import json
import socket
import time

import harness
import linux_guest_test
import overlay_test

ADDRESS = harness.LinuxSnapshot.ADDRESS
HOST = harness.LinuxSnapshot.HOST
DISK = "disk.ext4"
# A loop that writes a file, and counts in a variable that only its shell has.
LOAD = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done >/root/count &\n"
# What a kernel says that has noticed something. (Its own name is in the command line.)
TROUBLE = "rcu.*stall|soft lockup|hung task|clocksource.*unstable|BUG|I/O error|EXT4-fs error"


def fetch(device):
    """The page of the guest behind a TAP; None while nobody answers."""
    with socket.socket() as client:
        client.settimeout(20)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        try:
            client.connect((ADDRESS, 80))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            page = b""
            while data := client.recv(65536):
                page += data
            return page.decode()
        except OSError:
            return None


class ForkLinuxTest(overlay_test.OverlayTest):
    snapshot = None  # harness.LinuxSnapshot

    def fork(self, *arguments):
        done = self.workspace.ivmm("fork", "linux", "--json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        print(f"pause {report['pause_us']:.0f} µs, disks {report['disk_fork_us']:.0f} µs, "
              f"runs after {report['trigger_to_run_us'] / 1000:.1f} ms", flush=True)
        return report

    def test_both_go_on(self):
        self.mount(lower=self.snapshot.path)
        disk = self.mnt / DISK
        main = harness.Restored(self.workspace, self.snapshot.path / "snapshot", "linux",
                                "--disk", disk)
        self.addCleanup(main.close)
        main.type("\n")
        main.wait_for(harness.LinuxSnapshot.PROMPT)
        kept = self.workspace.ivmm("standby", "linux")
        self.assertEqual(kept.returncode, 0, kept.stderr)
        shell = harness.Shell(main)
        shell.run("secret=from-before; cd /tmp")
        main.type(LOAD)
        self.assertIn("ivmm guest", harness.eventually(lambda: fetch("tap0")) or "")

        report = self.fork("--name", "trap", "--net", f"tap=tap1,host={HOST}")
        self.assertFalse(report["waited_for_sync"])
        self.assertEqual([d["method"] for d in report["disks"]], ["overlay"])
        clone = harness.Program([harness.IVMM, "console", "trap"], self.workspace.environment)
        self.addCleanup(clone.close)
        trap = harness.Shell(clone)

        for name, one in (("clone", trap), ("primary", shell)):
            # The very shell, its variables, its folder and its background job.
            self.assertIn("from-before /tmp", one.run("echo $secret $PWD"), name)
            before = int(one.run("tail -n 1 /root/count"))
            time.sleep(1)
            self.assertGreater(int(one.run("tail -n 1 /root/count")), before, name)
        self.assertIn("ivmm guest", fetch("tap0") or "", "the primary serves")
        self.assertIn("ivmm guest", fetch("tap1") or "", "the clone serves")

        # Clocks: neither has lost or won more than it takes to ask.
        begin = time.monotonic()
        ours = float(shell.run("cat /proc/uptime").split()[0])
        theirs = float(trap.run("cat /proc/uptime").split()[0])
        self.assertGreaterEqual(theirs, ours)
        self.assertLessEqual(theirs - ours, time.monotonic() - begin + 1)

        # What one writes the other does not have.
        shell.run("echo primary >/root/mine; sync")
        trap.run("echo clone >/root/mine; echo more >/root/trapped; sync")
        self.assertIn("primary", shell.run("cat /root/mine"))
        self.assertIn("clone", trap.run("cat /root/mine"))
        self.assertIn("No such file", shell.run("cat /root/trapped"))

        for name, one in (("clone", trap), ("primary", shell)):
            self.assertNotRegex(one.run("dmesg"), TROUBLE, name)
            one.console.type("poweroff\n")
        self.assertEqual(main.wait_end(), 0, main.log)
        clone.wait_end()
        self.assertTrue(harness.eventually(
            lambda: "trap" not in self.workspace.ivmm("ls").stdout))

        for path, content in ((disk, "primary"), (report["disks"][0]["path"], "clone")):
            check = linux_guest_test.fsck(path)
            self.assertEqual(check.returncode, 0, check.stdout)
            self.assertEqual(linux_guest_test.file_in(path, "/root/mine"), f"{content}\n")
        removed = self.workspace.ivmm("rm", "trap")
        self.assertEqual(removed.returncode, 0, removed.stderr)
        pid = self.pid_of(self.mnt)
        self.overlay("umount", self.mnt)
        self.expect_nothing_left(pid)
        self.assertEqual([n for n in self.workspace.leftovers() if n != "overlay"], [])


if __name__ == "__main__":
    harness.require_kvm()
    overlay_test.require_fuse()
    harness.enter_own_network()
    ForkLinuxTest.snapshot = harness.LinuxSnapshot(harness.LinuxImages())
    harness.main()
