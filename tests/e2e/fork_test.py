#!/usr/bin/env python3
"""Forks of guests that check themselves: memory, disk and clocks of primary and clone."""

import json
import os
import pathlib
import random
import re
import signal
import socket
import time
import unittest

import harness


class Clone(harness.Program):
    """The console of a clone, from its start on."""

    def __init__(self, workspace, report):
        self.report = report
        self.name = report["clone"]
        super().__init__([harness.IVMM, "console", self.name], workspace.environment)
        self.workspace = workspace

    def end(self):
        self.workspace.ivmm("stop", self.name)
        self.wait_end()


class ForkTest(unittest.TestCase):
    def setUp(self):
        self.workspace = harness.Workspace()
        self.addCleanup(self.workspace.close)

    def start(self, guest, *arguments, cmdline=""):
        running = harness.Guest(
            self.workspace, "main", "--no-acpi", "--kernel", harness.GUESTS / f"{guest}.elf",
            *arguments, "--cmdline", cmdline,
        )
        self.addCleanup(running.close)
        return running

    def fork(self, *arguments, name="main"):
        done = self.workspace.ivmm("fork", name, "--json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        print(
            f"{report['clone']}: pause {report['pause_us']:.0f} µs"
            f" ({report['residual_pages']} pages {report['residual_copy_us']:.0f},"
            f" state {report['state_us']:.0f}, disks {report['disk_fork_us']:.0f}),"
            f" runs after {report['trigger_to_run_us'] / 1000:.1f} ms,"
            f" private {report['clone_private_bytes'] >> 10} KiB",
            flush=True,
        )
        return report

    def in_sync(self):
        done = self.workspace.ivmm("standby", "main")
        self.assertEqual(done.returncode, 0, done.stderr)

    def clone(self, *arguments):
        console = Clone(self.workspace, self.fork(*arguments))
        self.addCleanup(console.close)
        return console

    def assert_no_leftovers(self):
        self.assertEqual(self.workspace.leftovers(), [])

    def assert_passes(self, console, passes=2, since=0):
        """The guest goes over its memory so many times more, and finds it as it should be."""
        first = []

        def enough():
            reports = re.findall(r"generation=(\d+) .* errors=(\d+)", console.console[since:])
            if reports:
                self.assertEqual({errors for _, errors in reports}, {"0"}, console.console)
                first.append(int(reports[0][0]))
                return int(reports[-1][0]) >= first[0] + passes
            return False

        self.assertTrue(harness.eventually(enough), console.console + console.log)

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

    def test_refusals_leave_the_guest_alone(self):
        main = self.start("dirty", "--mem", "64M", cmdline="op=verify rate=50 interval_ms=50 size=16")
        main.wait_for("generation=")

        def refused(reason, *arguments, code=1):
            done = self.workspace.ivmm("fork", *arguments)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(reason, done.stderr)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)

        refused("'main'", "main", "--name", "main")
        refused("is not a name", "main", "--name", "no/name", code=2)
        refused("unknown option", "main", "--net", "colour=red", code=2)
        refused("0 network devices", "main", "--net", "tap=x0", code=1)
        refused("no guest", "other")
        self.assert_passes(main, since=len(main.console))

        # A standby that is killed is replaced, and a fork in that moment does not fail.
        self.in_sync()
        pid = self.standby()["pid"]
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(harness.eventually(
            lambda: self.standby()["phase"] == "in-sync" and self.standby()["pid"] != pid))
        clone = self.clone("--name", "trap")
        self.assertEqual(clone.name, "trap")
        refused("'trap'", "main", "--name", "trap")
        self.assert_passes(clone)

        # The clone outlives its primary, even one that is killed.
        os.kill(main.status()["pid"], signal.SIGKILL)
        main.wait_end()
        self.assert_passes(clone, since=len(clone.console))
        clone.end()
        self.workspace.ivmm("rm", "trap")
        self.workspace.ivmm("ls")
        self.assert_no_leftovers()

    def standby(self):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.workspace.path / "ivmm" / "main.sock"))
            client.sendall(b'{"jsonrpc":"2.0","id":1,"method":"standby.status"}\n')
            return json.loads(client.makefile().readline())["result"]

    def test_a_standby_that_is_killed_in_the_middle_of_a_fork(self):
        main = self.start("dirty", "--mem", "64M",
                          cmdline="op=verify rate=100 interval_ms=50 size=32 fill=1")
        main.wait_for("generation=")
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", flush=True)
        moments = random.Random(seed)
        outcomes = []
        for number in range(15):
            self.in_sync()
            pid = self.standby()["pid"]
            with harness.Program([harness.IVMM, "fork", "main", "--name", f"trap{number}"],
                                 self.workspace.environment) as call:
                time.sleep(moments.uniform(0, 0.012))
                os.kill(pid, signal.SIGKILL)
                outcomes.append(call.wait_end())
                lines = call.log.strip().splitlines()
                # Either it was the clone's process by then, or the fork failed and says at what; or
                # the fork had not begun yet, and made another standby.
                self.assertTrue(len(lines) == outcomes[-1] or "no standby in sync" in call.log,
                                call.log)
            self.assertEqual(main.status()["state"], "running")
        print(f"{outcomes.count(0)} of {len(outcomes)} forks were done before", flush=True)
        self.assert_passes(main, since=len(main.console))
        self.workspace.ivmm("ls")
        self.workspace.ivmm("rm", "--all")
        self.workspace.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)
        logs = [f"trap{number}.log" for number in range(15)]
        self.assertEqual([n for n in self.workspace.leftovers() if n not in logs], [])

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
