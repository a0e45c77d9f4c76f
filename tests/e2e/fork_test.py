#!/usr/bin/env python3
"""Forks of guests that check themselves: memory, disk and clocks of primary and clone."""

import os
import pathlib
import random
import re

import harness
from forks import Clone, ForkCase


class ForkTest(ForkCase):
    def check_memory(self, memory, cmdline, *arguments, forks=3):
        main = self.start("dirty", "--mem", memory, *arguments,
                          cmdline=f"op=verify interval_ms=50 {cmdline}")
        main.wait_for("generation=")
        for _ in range(forks):
            self.in_sync()
            clone = self.clone()
            self.assertFalse(clone.report["waited_for_sync"])
            self.assert_passes(clone)
            self.assert_passes(main, since=len(main.console))
            clone.end()
            self.workspace.ivmm("rm", clone.name)
        self.workspace.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)
        self.assert_no_leftovers()

    def test_memory_under_load(self):
        self.check_memory("64M", "start=8 size=48 fill=1 rate=100 stride=0", forks=10)

    def test_memory_written_as_fast_as_it_goes(self):
        self.check_memory("128M", "start=8 size=64 rate=0")

    def test_memory_of_two_cpus(self):
        self.check_memory("64M", "cpus=2 start=8 size=48 fill=1 rate=100 stride=0", "--cpus", "2",
                          forks=5)

    def test_memory_beyond_four_gigabytes(self):
        self.check_memory("4G", "start=4G size=64 fill=1 rate=200", forks=2)

    def check_disk(self, disk, method):
        """A guest that writes all over its disk and reads it back, again and again."""
        main = self.start("blk", "--mem", "64M", "--disk", disk,
                          cmdline="op=verify passes=0 n=256 bs=4096 qd=16")
        main.wait_for("op=check")
        for _ in range(3):
            self.in_sync()
            clone = self.clone()
            self.assertEqual([d["method"] for d in clone.report["disks"]], [method])
            clone_disk = pathlib.Path(clone.report["disks"][0]["path"])
            self.assertTrue(clone_disk.exists())
            for console, since in ((clone, 0), (main, len(main.console))):
                self.assertTrue(
                    harness.eventually(lambda: console.console[since:].count("op=check") >= 3),
                    console.console + console.log,
                )
                self.assertNotIn("FAILED", console.console)
                self.assertEqual(set(re.findall(r"errors=(\d+)", console.console)), {"0"})
            clone.end()
            self.assertEqual(self.workspace.ivmm("rm", clone.name).returncode, 0)
            self.assertFalse(clone_disk.exists())
        self.workspace.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)
        self.assert_no_leftovers()

    def test_disk_in_a_file(self):
        disk = self.workspace.path / "disk.img"
        disk.write_bytes(bytes(4 << 20))
        self.check_disk(disk, "copy")

    def test_many_forks(self):
        """One after the other, also before the next standby is in sync; some run side by side."""
        disk = self.workspace.path / "disk.img"
        disk.write_bytes(bytes(1 << 20))
        main = self.start("dirty", "--mem", "64M", "--disk", disk, "--cpus", "2",
                          cmdline="op=verify interval_ms=50 cpus=2 start=8 size=32 fill=1 rate=100 stride=0")
        main.wait_for("generation=")
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", flush=True)
        choose = random.Random(seed)
        clones = []
        forks = int(os.environ.get("IVMM_FORKS", "30"))
        for _ in range(forks):
            if choose.random() < 0.7:
                self.in_sync()
            clones.append(self.clone())
            if len(clones) > choose.randrange(4):
                clone = clones.pop(choose.randrange(len(clones)))
                self.assert_passes(clone, passes=1)
                clone.end()
                clone.close()
                self.assertEqual(self.workspace.ivmm("rm", clone.name).returncode, 0)
        self.assertEqual(self.standby()["forks"], forks)
        for console in (*clones, main):
            self.assert_passes(console, since=len(console.console))
        for clone in clones:
            clone.end()
        self.workspace.ivmm("rm", "--all")
        self.workspace.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)
        self.assert_no_leftovers()

    def test_several_clones_of_one_instant(self):
        disk = self.workspace.path / "disk.img"
        disk.write_bytes(bytes(4 << 20))
        main = self.start("blk", "--mem", "64M", "--disk", disk,
                          cmdline="op=verify passes=0 n=256 bs=4096 qd=16")
        main.wait_for("op=check")
        self.in_sync()
        report = self.fork("--name", "trap", "--clones", "3")
        names = ["trap", *(sibling["clone"] for sibling in report["siblings"])]
        self.assertEqual(names, ["trap", "trap-2", "trap-3"])
        self.assertEqual({sibling["error"] for sibling in report["siblings"]}, {""})
        disks = {report["disks"][0]["path"], *(s["disks"][0]["path"] for s in report["siblings"])}
        self.assertEqual(len(disks), 3)
        images = {os.stat(f"/proc/{pid}/map_files/{area}").st_ino
                  for pid in [report["clone_pid"], *(s["clone_pid"] for s in report["siblings"])]
                  for area in self.areas_of(pid, "memfd:ivmm-replica")}
        self.assertEqual(len(images), 1, "the clones share one image")
        for name in names:
            console = Clone(self.workspace, {"clone": name})
            self.addCleanup(console.close)
            self.assertTrue(
                harness.eventually(lambda c=console: c.console.count("op=check") >= 3),
                console.console + console.log,
            )
            self.assertEqual(set(re.findall(r"errors=(\d+)", console.console)), {"0"})
            console.end()
        for name in names:  # the first one's disks go before those that began as them
            self.assertEqual(self.workspace.ivmm("rm", name).returncode, 0)
        self.assertEqual([path for path in disks if os.path.exists(path)], [])
        self.workspace.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)
        self.assert_no_leftovers()

    @staticmethod
    def areas_of(pid, name):
        lines = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
        return [line.split()[0] for line in lines if name in line]

    def test_a_fork_of_a_clone(self):
        main = self.start("dirty", "--mem", "64M",
                          cmdline="op=verify rate=100 interval_ms=50 size=32 fill=1")
        main.wait_for("generation=")
        clone = self.clone("--name", "first")
        self.assertTrue(clone.report["waited_for_sync"])
        second = Clone(self.workspace, self.fork("--name", "second", name="first"))
        self.addCleanup(second.close)
        for console in (second, clone, main):
            self.assert_passes(console, since=len(console.console))
        for console in (second, clone):
            console.end()
        self.workspace.ivmm("rm", "--all")
        self.workspace.ivmm("stop", "main")
        main.wait_end()
        self.assert_no_leftovers()

    def test_a_paused_guest_stays_paused(self):
        main = self.start("dirty", "--mem", "64M", cmdline="op=verify rate=50 interval_ms=50 size=16")
        main.wait_for("generation=")
        self.workspace.ivmm("pause", "main")
        clone = self.clone()
        self.assertEqual(main.status()["state"], "paused")
        self.assert_passes(clone)
        self.workspace.ivmm("resume", "main")
        self.assert_passes(main, since=len(main.console))
        clone.end()


if __name__ == "__main__":
    harness.require_kvm()
    harness.main()
