#!/usr/bin/env python3
"""A guest whose disk is on an overlay, in files and on from there."""

import json
import re

import harness
import overlay_test


class SnapshotOverlayTest(overlay_test.OverlayTest):
    def assert_checks(self, guest, since=0):
        """The guest writes all over its disk and reads it back, again and again."""
        self.assertTrue(
            harness.eventually(lambda: guest.console[since:].count("op=check") >= 3),
            guest.console + guest.log)
        self.assertNotIn("FAILED", guest.console)
        self.assertEqual(set(re.findall(r"errors=(\d+)", guest.console)), {"0"})

    def test_each_restored_guest_has_a_view_of_its_own(self):
        (self.base / "disk.img").write_bytes(bytes(4 << 20))
        self.mount()
        main = harness.Guest(
            self.workspace, "main", "--no-acpi", "--kernel", harness.GUESTS / "blk.elf", "--mem",
            "64M", "--disk", self.mnt / "disk.img", "--cmdline",
            "op=verify passes=0 n=256 bs=4096 qd=16",
        )
        self.addCleanup(main.close)
        main.wait_for("op=check")
        folder = self.workspace.path / "one"
        done = self.workspace.ivmm("snapshot", "main", folder, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual([disk["method"] for disk in report["disks"]], ["overlay"])
        guests = [harness.Restored(self.workspace, folder, name) for name in ("a", "b")]
        for guest in guests:
            self.addCleanup(guest.close)
            self.assert_checks(guest)
        self.assert_checks(main, since=len(main.console))
        for guest in (main, *guests):
            self.workspace.ivmm("stop", guest.name)
            self.assertEqual(guest.wait_end(), 0, guest.log)
        for name in ("a", "b", report["disks_of"]):
            removed = self.workspace.ivmm("rm", name)
            self.assertEqual(removed.returncode, 0, removed.stderr)
        pid = self.pid_of(self.mnt)
        self.overlay("umount", self.mnt)
        self.expect_nothing_left(pid)
        self.assertEqual([n for n in self.workspace.leftovers() if n != "overlay"], [])


if __name__ == "__main__":
    harness.require_kvm()
    overlay_test.require_fuse()
    harness.main()
