#!/usr/bin/env python3
"""An ivmm guest whose disk is a file of the overlay, which is forked while the guest writes."""

import random
import time

import guest_load
import harness
import overlay_test

DISK = "rootfs.ext4"
MAIN = "/root/main"
CLONE = "/root/clone"
CMDLINE = "root=/dev/vda rootfstype=ext4 rw quiet"
PROMPT = ":~# "
FORKS = 3
LONGEST_WAIT = 0.5  # seconds from the end of a round to a fork: at any point of the next one


class ForkUnderLoad(overlay_test.OverlayTest):
    """What must hold for the disk of any guest."""

    images = None  # harness.LinuxImages
    passes = guest_load.MOST_PASSES

    def setUp(self):
        super().setUp()
        self.image = self.images.rootfs / DISK
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", flush=True)
        self.random = random.Random(seed)

    def run_forks(self, start):
        """`start(disk)` starts a guest; its `close` ends it if need be, its `power_off` well."""
        original = self.image.stat()
        self.mount(lower=self.images.rootfs)
        disk = self.mnt / DISK
        guest_load.install(disk, MAIN, CLONE)

        guest = start(disk)
        self.addCleanup(guest.close)
        print(f"shell after {guest.wait_for(PROMPT):.1f} s", flush=True)
        load = guest_load.Load(guest, MAIN, self.passes)
        cuts = [self.fork(self.mnt, load, f"c{number}") for number in range(FORKS)]

        # A guest goes on where the last fork has left the disk, while the first one writes.
        mount, *at_boot = cuts.pop()
        clone = start(mount / DISK)
        self.addCleanup(clone.close)
        print(f"shell of the clone after {clone.wait_for(PROMPT):.1f} s", flush=True)
        clone_load = guest_load.Load(clone, CLONE, self.passes)
        clone_cut = self.fork(mount, clone_load, "cc")
        for running, one_load in ((clone, clone_load), (guest, load)):
            one_load.end()
            running.power_off()
            for trouble in ("I/O error", "EXT4-fs error", "EXT4-fs warning", "JBD2"):
                self.assertNotIn(trouble, running.console)

        for folder, *cut in cuts:
            guest_load.replay_journal(folder / DISK)
            guest_load.check_file_system(folder / DISK)
            guest_load.check_data(folder / DISK, MAIN, *cut)
            guest_load.check_data(folder / DISK, CLONE, guest_load.NOTHING, 0)
        # The journal of the clone's own cut is replayed too: what the clone had is still there.
        folder, *cut = clone_cut
        guest_load.replay_journal(folder / DISK)
        guest_load.check_file_system(folder / DISK)
        guest_load.check_data(folder / DISK, CLONE, *cut)
        at_fork = guest_load.check_data(folder / DISK, MAIN, *at_boot)

        guest_load.check_file_system(mount / DISK)
        self.assertEqual(guest_load.check_data(mount / DISK, MAIN, *at_boot), at_fork)
        guest_load.check_data(mount / DISK, CLONE, clone_load.flushed(), clone_load.epoch,
                              complete=True)
        guest_load.check_file_system(disk)
        guest_load.check_data(disk, MAIN, load.flushed(), load.epoch, complete=True)
        guest_load.check_data(disk, CLONE, guest_load.NOTHING, 0)
        print(f"{load.flushed() - guest_load.NOTHING} rounds", flush=True)

        pid = self.pid_of(self.mnt)
        self.overlay("umount", clone_cut[0], mount, *(cut[0] for cut in cuts), self.mnt)
        self.expect_nothing_left(pid)
        self.assertEqual(self.image.stat().st_mtime_ns, original.st_mtime_ns)

    def fork(self, mount, load, view):
        """Forks while the load runs; where the new view is mounted, the last round that it must
        have, and the last epoch that it may tell of."""
        folder = self.folder(view)
        load.wait_for_epoch()
        time.sleep(self.random.uniform(0, LONGEST_WAIT))
        flushed, epoch = load.flushed(), load.epoch
        report = self.overlay_json("fork", mount, f"{view}={folder}")
        load.next_epoch()
        print(f"fork after round {flushed}: paused for {report['pause_us']:.0f} µs, of them "
              f"{report['drain_us']:.0f} µs for operations in flight", flush=True)
        return folder, flushed, epoch


class IvmmGuest(harness.Guest):
    def power_off(self):
        self.type("poweroff\n")
        if self.wait_end() != 0 or "powered itself off" not in self.log:
            raise AssertionError(f"{self.console}{self.log}")


class IvmmTest(ForkUnderLoad):
    passes = 1  # a lot, where the guest's kernel is emulated

    def test_forks_while_it_writes(self):
        def start(disk):
            return IvmmGuest(self.workspace, disk.parent.name, "--kernel",
                             self.images.kernel / "vmlinux", "--mem", "128M", "--disk", disk,
                             "--cmdline", CMDLINE)

        self.run_forks(start)
        self.assertEqual([n for n in self.workspace.leftovers() if n != "overlay"], [])


if __name__ == "__main__":
    harness.require_kvm()
    overlay_test.require_fuse()
    ForkUnderLoad.images = harness.LinuxImages()
    harness.main()
