#!/usr/bin/env python3
"""Forks that fail, at each of their steps: the guest goes on, the next fork works."""

import os
import random
import resource
import signal
import subprocess
import time
import unittest

import harness
from forks import ForkCase


class ForkFailuresTest(ForkCase):
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
        refused("--clones", "main", "--clones", "0", code=2)
        refused("16 at most", "main", "--clones", "17")
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
        self.workspace.path.joinpath("ivmm", "pit-2.clone").write_text("")
        refused("'pit-2'", "main", "--name", "pit", "--clones", "2")
        self.workspace.path.joinpath("ivmm", "pit-2.clone").unlink()
        self.assert_passes(clone)

        # The clone outlives its primary, even one that is killed.
        os.kill(main.status()["pid"], signal.SIGKILL)
        main.wait_end()
        self.assert_passes(clone, since=len(clone.console))
        clone.end()
        self.workspace.ivmm("rm", "trap")
        self.workspace.ivmm("ls")
        self.assert_no_leftovers()

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
        # Those of forks that had made another standby run.
        self.workspace.ivmm("rm", "--all", "--force")
        self.workspace.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)
        logs = [f"trap{number}.log" for number in range(15)]
        self.assertEqual([n for n in self.workspace.leftovers() if n not in logs], [])

    def start_checked(self, *arguments):
        main = self.start("dirty", "--mem", "64M", *arguments,
                          cmdline="op=verify rate=50 interval_ms=50 size=16 fill=1")
        main.wait_for("generation=")
        return main

    def fails_at(self, step, reason, *arguments):
        done = self.workspace.ivmm("fork", "main", *arguments)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertIn(step, done.stderr)
        self.assertIn(reason, done.stderr)

    def end(self, main):
        """After a failure: the guest is as it was, and a fork works."""
        self.assert_passes(main, since=len(main.console))
        clone = self.clone()
        self.assert_passes(clone)
        clone.end()
        self.workspace.ivmm("rm", "--all")
        self.workspace.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)
        self.assert_no_leftovers()

    def test_a_standby_that_does_not_answer(self):
        main = self.start_checked()
        self.in_sync()
        pid = self.standby()["pid"]
        os.kill(pid, signal.SIGSTOP)
        self.fails_at("preparing the clone", "does not answer", "--name", "trap")
        self.assertEqual(main.status()["state"], "running")
        self.in_sync_again(pid)
        self.assertFalse(os.path.exists(f"/proc/{pid}"), "nobody waits for it any more")
        self.end(main)

    def test_no_room_for_the_next_replica(self):
        main = self.start_checked()
        self.in_sync()
        process = main.status()["pid"]
        limits = resource.prlimit(process, resource.RLIMIT_AS)
        with open(f"/proc/{process}/statm", encoding="ascii") as statm:
            size = int(statm.read().split()[0]) * resource.getpagesize()
        # The clone's image is unmapped before the next one is made, so less than that is left.
        resource.prlimit(process, resource.RLIMIT_AS, (size - (32 << 20), limits[1]))
        clone = self.clone()
        self.assertTrue(harness.eventually(lambda: self.standby()["phase"] == "failed"))
        self.assertIn("cannot map a replica", self.standby()["error"])
        self.fails_at("", "cannot map a replica")
        self.assert_passes(main, since=len(main.console))
        self.assert_passes(clone)
        clone.end()
        resource.prlimit(process, resource.RLIMIT_AS, limits)
        self.in_sync()
        self.end(main)

    @unittest.skipUnless(os.geteuid() == 0, "a small file system cannot be mounted without root")
    def test_a_disk_that_cannot_be_forked(self):
        folder = self.workspace.path / "small"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "none", folder], check=True)
        # The kernel closes the files of a process that was using io_uring a little after its end.
        self.addCleanup(lambda: self.assertTrue(harness.eventually(
            lambda: subprocess.run(["umount", folder], capture_output=True).returncode == 0)))
        disk = folder / "disk.img"
        disk.write_bytes(os.urandom(3 << 20))
        main = self.start_checked("--disk", disk)
        self.in_sync()
        pid = self.standby()["pid"]
        self.fails_at("preparing the clone", "too little space")
        self.assertEqual(self.standby()["pid"], pid, "the standby was not needed for that")
        self.assertEqual(sorted(p.name for p in folder.iterdir()), ["disk.img"])
        subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True)
        self.end(main)

    def test_a_clone_that_cannot_start(self):
        disk = self.workspace.path / "disk.img"
        disk.write_bytes(bytes(2 << 20))
        main = self.start_checked("--disk", disk)
        self.in_sync()
        pid = self.standby()["pid"]
        os.truncate(disk, 1 << 20)  # which its driver would not understand
        self.fails_at("starting the clone", "the guest knows it with", "--name", "trap")
        self.in_sync_again(pid)
        os.truncate(disk, 2 << 20)
        # The next standby was made for the disk as it was by then.
        self.workspace.ivmm("standby", "main", "--off")
        self.in_sync()
        self.assertEqual(list(self.workspace.path.glob("disk.img.*")), [])
        self.end(main)


if __name__ == "__main__":
    harness.require_kvm()
    harness.main()
