#!/usr/bin/env python3
"""Forks of guests that check themselves: memory, disk and clocks of primary and clone."""

import json
import re
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


if __name__ == "__main__":
    harness.require_kvm()
    harness.main()
