#!/usr/bin/env python3
"""Guests that check themselves are saved in files and go on from them: memory, disks, clocks."""

import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import unittest

import harness

FAILED = 1
USAGE = 2
LOAD = "op=verify interval_ms=50 start=8 size=48 fill=1 rate=100 stride=0"


class SnapshotTest(unittest.TestCase):
    def setUp(self):
        self.workspace = harness.Workspace()
        self.addCleanup(self.workspace.close)

    def start(self, guest, *arguments, cmdline="", name="main"):
        running = harness.Guest(
            self.workspace, name, "--no-acpi", "--kernel", harness.GUESTS / f"{guest}.elf",
            *arguments, "--cmdline", cmdline,
        )
        self.addCleanup(running.close)
        return running

    def start_dirty(self, *arguments, cmdline=LOAD, memory="64M"):
        main = self.start("dirty", "--mem", memory, *arguments, cmdline=cmdline)
        main.wait_for("generation=")
        return main

    def folder(self, name):
        return self.workspace.path / name

    def save(self, folder, *arguments, name="main"):
        done = self.workspace.ivmm("snapshot", name, self.folder(folder), "--json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        print(f"{folder}: pause {report['pause_us']:.0f} µs ({report['residual_pages']} pages "
              f"{report['residual_copy_us']:.0f}, state {report['state_us']:.0f}, disks "
              f"{report['disk_fork_us']:.0f}), {report['written_bytes'] >> 10} KiB", flush=True)
        return report

    def restore(self, folder, name, *arguments):
        guest = harness.Restored(self.workspace, self.folder(folder), name, *arguments)
        self.addCleanup(guest.close)
        return guest

    def refused(self, reason, *command, code=FAILED):
        done = self.workspace.ivmm(*command)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(reason, done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)

    def assert_passes(self, guest, passes=2, since=0):
        """The guest goes over its memory so many times more, and finds it as it should be."""
        first = []

        def enough():
            reports = re.findall(r"generation=(\d+) .* errors=(\d+)", guest.console[since:])
            if reports:
                self.assertEqual({errors for _, errors in reports}, {"0"}, guest.console)
                first.append(int(reports[0][0]))
                return int(reports[-1][0]) >= first[0] + passes
            return False

        self.assertTrue(harness.eventually(enough), guest.console + guest.log)

    def end(self, *guests):
        for guest in guests:
            self.workspace.ivmm("stop", guest.name)
            self.assertEqual(guest.wait_end(), 0, guest.log)

    def assert_nothing_left(self, *files):
        self.assertEqual(self.workspace.leftovers(), [])
        names = {path.name for path in self.workspace.path.iterdir()} - {"ivmm"}
        self.assertEqual(names, set(files))

    def test_a_guest_goes_on_from_files(self):
        main = self.start_dirty()
        self.save("one")
        self.assert_passes(main, since=len(main.console))
        self.end(main)
        # As often as one likes, also at once; and with the name that it had.
        guests = [self.restore("one", name) for name in ("main", "second")]
        for guest in guests:
            self.assert_passes(guest)
        self.end(*guests)
        self.assert_nothing_left("one")

    def test_two_vcpus(self):
        main = self.start_dirty("--cpus", "2", cmdline=f"cpus=2 {LOAD}")
        for number in range(3):
            self.save(f"at{number}")
            self.assert_passes(main, since=len(main.console))
        self.end(main)
        for number in range(3):
            guest = self.restore(f"at{number}", "again")
            self.assert_passes(guest)
            self.end(guest)

    def test_memory_beyond_four_gigabytes(self):
        main = self.start_dirty(memory="4G",
                                cmdline="op=verify interval_ms=50 start=4G size=64 fill=1 rate=200")
        self.save("one")
        self.save("two", "--base", self.folder("one"))
        self.end(main)
        for folder in ("one", "two"):
            guest = self.restore(folder, "again")
            self.assert_passes(guest)
            self.end(guest)

    def test_only_what_is_different_is_kept(self):
        main = self.start_dirty(cmdline="op=verify interval_ms=50 start=8 size=48 fill=1 rate=0")
        first = self.save("one")
        # All of its memory was written, to what it was but for a word in each page: all differ.
        self.save("two", "--base", self.folder("one"))
        self.workspace.ivmm("pause", "main")
        third = self.save("three", "--base", self.folder("two"))
        fourth = self.save("four", "--base", self.folder("three"))
        self.assertEqual(main.status()["state"], "paused")
        self.assertGreater(third["written_bytes"], 0)
        self.assertEqual(fourth["written_bytes"], 0)
        self.assertLess((self.folder("four") / "memory").stat().st_blocks * 512,
                        first["written_bytes"] / 10)
        self.workspace.ivmm("resume", "main")
        self.end(main)
        guest = self.restore("four", "again", "--check")
        self.assert_passes(guest)
        # The memory of a restored guest is the files' but for what it has written.
        self.save("five", "--base", self.folder("four"), name="again")
        self.end(guest)
        last = self.restore("five", "last")
        self.assert_passes(last)
        self.end(last)

    def test_a_restored_guest_takes_no_more_space(self):
        main = self.start_dirty(memory="512M", cmdline="op=verify start=8 size=16 rate=20 "
                                                       "fill=1 interval_ms=50")
        first = self.save("one")
        self.end(main)
        before = (self.folder("one") / "memory").stat().st_blocks
        guest = self.restore("one", "again")
        self.assert_passes(guest)
        second = self.save("two", name="again")
        self.assertLess(second["written_bytes"], first["written_bytes"] + (4 << 20))
        self.assertEqual((self.folder("one") / "memory").stat().st_blocks, before)
        self.assertLess(guest.status()["memory_resident_bytes"], 64 << 20)
        self.end(guest)

    def test_with_a_standby(self):
        main = self.start_dirty()
        self.assertEqual(self.workspace.ivmm("standby", "main").returncode, 0)
        self.save("one")
        # The standby is still good for a fork.
        done = self.workspace.ivmm("fork", "main", "--name", "trap", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(json.loads(done.stdout)["waited_for_sync"])
        self.workspace.ivmm("stop", "trap")
        self.workspace.ivmm("rm", "trap")
        self.end(main)
        guest = self.restore("one", "again")
        self.assert_passes(guest)
        self.end(guest)

    def test_timers_go_on(self):
        # One kind after the other; each snapshot is in the middle of the one that follows.
        kinds = ("periodic", "oneshot", "deadline")
        main = self.start("irq", "--mem", "64M", cmdline="ms=1500 tolerance=100")
        for kind in kinds:
            main.wait_for(f"kind={kind}")
            self.save(kind)
        self.assertEqual(main.wait_end(), 0)
        for number, kind in enumerate(kinds):
            # It sleeps until a timer wakes it, and ends when its time is over.
            guest = self.restore(kind, "again")
            self.assertEqual(guest.wait_end(), 0, guest.console + guest.log)
            for rest in (*kinds[number + 1:], "pit", "self"):
                self.assertIn(f"kind={rest}", guest.console)
            self.assertIn("guest irq: done", guest.console)

    def blk(self, disk):
        main = self.start("blk", "--mem", "64M", "--disk", disk,
                          cmdline="op=verify passes=0 n=256 bs=4096 qd=16")
        main.wait_for("op=check")
        return main

    def assert_checks(self, guest, since=0):
        self.assertTrue(
            harness.eventually(lambda: guest.console[since:].count("op=check") >= 3),
            guest.console + guest.log)
        self.assertNotIn("FAILED", guest.console)
        self.assertEqual(set(re.findall(r"errors=(\d+)", guest.console)), {"0"})

    def disk(self):
        disk = self.folder("disk.img")
        disk.write_bytes(bytes(4 << 20))
        return disk

    def test_a_disk_is_forked_with_it(self):
        disk = self.disk()
        main = self.blk(disk)
        report = self.save("one")
        own = pathlib.Path(report["disks"][0]["path"])
        self.assertEqual(own, self.folder("disk.img.main-one"))
        self.assert_checks(main, since=len(main.console))
        content = own.read_bytes()
        guests = [self.restore("one", name) for name in ("a", "b")]
        for guest in guests:
            self.assert_checks(guest)
        self.end(main, *guests)
        self.assertEqual(own.read_bytes(), content)

        # A disk that is not what it was.
        with own.open("r+b") as file:
            file.write(b"x")
        self.refused("has been changed", "restore", self.folder("one"), "--name", "c")
        os.truncate(own, 1 << 20)
        self.refused("bytes", "restore", self.folder("one"), "--name", "c")
        own.rename(f"{own}.away")
        self.refused(str(own), "restore", self.folder("one"), "--name", "c", code=USAGE)
        pathlib.Path(f"{own}.away").unlink()
        for name in ("a", "b", "main-one"):
            done = self.workspace.ivmm("rm", name)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_nothing_left("disk.img", "one")

    def test_a_guest_that_ends_with_it_keeps_its_disk(self):
        disk = self.disk()
        main = self.blk(disk)
        report = self.save("one", "--stop")
        self.assertEqual(report["disks"], [{"path": str(disk), "method": "kept"}])
        self.assertEqual(main.wait_end(), 0)
        subprocess.run(["cp", "-p", disk, self.folder("copy")], check=True)
        guest = self.restore("one", "main")
        self.assert_checks(guest)
        self.refused("has been changed", "restore", self.folder("one"), "--name", "c")
        copied = self.restore("one", "copied", "--disk", self.folder("copy"))
        self.assert_checks(copied)
        self.end(guest, copied)
        self.assert_nothing_left("disk.img", "one", "copy")

    def test_refusals(self):
        main = self.start_dirty()
        self.save("one")
        one = self.folder("one")
        self.refused("exists already", "snapshot", "main", one)
        self.refused("/nowhere", "snapshot", "main", "/nowhere/two")
        self.refused("machine", "snapshot", "main", self.folder("two"), "--base", "/nowhere")
        self.refused("no guest", "snapshot", "nobody", self.folder("two"))
        self.refused("'main'", "restore", one)
        self.refused("is not a name", "restore", one, "--name", "no/name", code=USAGE)
        self.refused("0 network devices", "restore", one, "--name", "b", "--net", "tap=x0",
                     code=USAGE)
        self.refused("machine", "restore", self.workspace.path, "--name", "b")
        other = self.start("hello", "--mem", "32M", cmdline="spin=1", name="other")
        other.wait_for("tick")
        self.refused("bytes of memory", "snapshot", "other", self.folder("two"), "--base", one)
        self.assert_passes(main, since=len(main.console))
        self.end(main, other)

        machine = (one / "machine").read_bytes()
        for content, reason in (
            (machine[:-1], "truncated: section 'machine'"),
            (machine[:20], "truncated"),
            (machine[:-1] + bytes([machine[-1] ^ 1]), "checksum of section 'machine'"),
            (machine[:8] + bytes([9]) + machine[9:], "newer ivmm"),
            (b"", "truncated"),
            (b"#!/bin/sh\n", "no snapshot"),
        ):
            (one / "machine").write_bytes(content)
            self.refused(reason, "restore", one)
            self.refused(f"{one}/machine", "restore", one)
        (one / "machine").write_bytes(machine)
        with (one / "memory").open("r+b") as memory:
            memory.seek(8 << 20)
            memory.write(b"damage")
        self.refused("memory': damaged", "restore", one, "--check")
        os.truncate(one / "memory", 1 << 20)
        self.refused("truncated", "restore", one)
        self.assert_nothing_left("one")

    def test_an_interrupted_snapshot_leaves_nothing(self):
        main = self.start_dirty(memory="1G", cmdline="op=write start=16 size=960 fill=1 rate=50")
        call = harness.Program([harness.IVMM, "snapshot", "main", self.folder("one")],
                               self.workspace.environment)
        self.addCleanup(call.close)
        self.assertTrue(harness.eventually(
            lambda: list(self.workspace.path.glob(".one.ivmm-*/memory")), interval=0.005))
        call.process.send_signal(signal.SIGINT)
        self.assertEqual(call.wait_end(), FAILED)
        self.assertIn("cancelled", call.log)
        self.assertEqual(main.status()["state"], "running")
        self.end(main)
        self.assert_nothing_left()

    def test_a_full_disk_leaves_nothing(self):
        small = self.folder("small")
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "none", small], check=True)
        self.addCleanup(subprocess.run, ["umount", small], check=True)
        main = self.start_dirty()
        for arguments in ((), ("--stop",)):
            self.refused("No space left", "snapshot", "main", small / "one", *arguments)
            self.assertEqual(list(small.iterdir()), [])
            self.assert_passes(main, since=len(main.console))
        self.end(main)


if __name__ == "__main__":
    harness.require_kvm()
    if os.geteuid() != 0:
        harness.skip("mounting needs root")
    harness.main()
