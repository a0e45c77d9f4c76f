#!/usr/bin/env python3
"""How clones live: hooks that change them before they run, their limits, their number."""

import json
import os
import time

import harness
import overlay_test
from forks import ForkCase

WRITES = "op=verify interval_ms=50 start=8 size=32 fill=1 rate=100 stride=0"


class CloneLifeTest(ForkCase):
    def script(self, name, text):
        path = self.workspace.path / name
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o700)
        return path

    def status(self, name):
        return json.loads(self.workspace.ivmm("status", name, "--json").stdout)

    def refused(self, reason, *arguments, code=1):
        done = self.workspace.ivmm("fork", "main", *arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(reason, done.stderr)

    def start_writer(self, *arguments):
        main = self.start("dirty", "--mem", "64M", *arguments, cmdline=WRITES)
        main.wait_for("generation=")
        return main

    def end(self, main, clones=()):
        for clone in clones:
            self.assertEqual(self.workspace.ivmm("rm", clone).returncode, 0)
        self.workspace.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)
        self.assert_nothing_but_logs()

    def test_a_lifetime(self):
        main = self.start_writer()
        clone = self.clone("--lifetime", "3")
        left = self.status(clone.name)["ends_in_s"]
        self.assertTrue(0 < left <= 3, left)
        self.assertIn("ends in", self.workspace.ivmm("status", clone.name).stdout)
        self.assertNotIn("ends_in_s", self.status("main"))
        begin = time.monotonic()
        clone.wait_end(30)
        self.assertGreater(time.monotonic() - begin, left - 1.5)
        self.assert_passes(main, since=len(main.console))
        self.end(main, [clone.name])

    def test_a_memory_limit(self):
        main = self.start_writer()
        clone = self.clone("--memory-limit", "16M")
        self.assertTrue(harness.eventually(lambda: self.status(clone.name)["state"] == "paused"))
        self.assertTrue(self.status(clone.name)["over_memory"])
        self.assertIn("limit is 16M", (self.workspace.path / f"ivmm/{clone.name}.log").read_text())
        # Whoever lets it go on has decided.
        self.workspace.ivmm("resume", clone.name)
        self.assert_passes(clone, since=len(clone.console))
        self.assertEqual(self.status(clone.name)["state"], "running")
        clone.end()
        self.end(main, [clone.name])

    def test_the_guest_file_says_how_many(self):
        """… and the oldest makes room for the next."""
        file = self.workspace.path / "main.toml"
        file.write_text("[clones]\nat_most = 2\nlifetime_s = 600\n")
        main = self.start_writer(file)
        first, second = self.clone(), self.clone()
        self.assertGreater(self.status(first.name)["ends_in_s"], 500)
        self.refused("2 at most")
        first.end()
        third = self.clone("--lifetime", "0")
        self.assertNotIn("ends_in_s", self.status(third.name))
        for clone in (second, third):
            clone.end()
        self.end(main, [first.name, second.name, third.name])

        main = self.start_writer(file, "--recycle")
        first, second = self.clone(), self.clone()
        self.refused("already", "--name", first.name)  # and costs none of them
        self.assertEqual(self.standby()["clones"], 2)
        third = self.clone()
        first.wait_end()
        for clone in (second, third):
            self.assert_passes(clone, since=len(clone.console))
        self.refused("2 at most", "--clones", "3")
        self.assertEqual(self.standby()["clones"], 2)
        for clone in (second, third):
            clone.end()
        self.end(main, [first.name, second.name, third.name])

    def test_a_hook_changes_disk_and_memory(self):
        disk = self.workspace.path / "disk.img"
        disk.write_bytes(b"secret".ljust(1 << 20, b"\0"))
        seen = self.workspace.path / "seen"
        # The guest looks after its memory from 8 MiB on, behind a page of its own.
        hook = self.script("hook", f"""
            env | grep ^IVMM_ | sort >{seen}
            head -c 4096 "$IVMM_MEMORY" >/dev/null || exit 1
            printf decoys | dd of="$IVMM_DISK0" conv=notrunc status=none
            echo memory {(8 << 20) + 101 * 4096 + 8} a5a5a5a5a5a5a5a5
            """)
        main = self.start_writer("--disk", disk, "--hook", hook)
        clone = self.clone("--name", "trap")
        self.assertGreater(clone.report["hook_us"], 0)
        self.assertLess(clone.report["hook_us"], clone.report["trigger_to_run_us"])
        path = clone.report["disks"][0]["path"]
        self.assertEqual(seen.read_text().split("\n")[:3],
                         ["IVMM_CLONE=trap", f"IVMM_DISK0={path}", "IVMM_GUEST=main"])
        with open(path, "rb") as changed:
            self.assertEqual(changed.read(6), b"decoys")
        self.assertTrue(disk.read_bytes().startswith(b"secret"))
        clone.wait_for("mismatch cpu=0 page=100 word=1 found=0xa5a5a5a5a5a5a5a5")
        self.assert_passes(main, since=len(main.console))

        # Nobody has to have it.
        plain = self.clone("--hook", "")
        self.assertEqual(plain.report["hook_us"], 0)
        self.assert_passes(plain)
        for one in (clone, plain):
            one.end()
        self.end(main, [clone.name, plain.name])

    def test_a_hook_of_each_sibling(self):
        names = self.workspace.path / "names"
        main = self.start_writer()
        report = self.fork("--name", "trap", "--clones", "2", "--hook",
                           self.script("hook", f"echo $IVMM_CLONE >>{names}"))
        self.assertGreater(report["siblings"][0]["hook_us"], 0)
        self.assertEqual(names.read_text(), "trap\ntrap-2\n")
        for name in ("trap", "trap-2"):
            self.workspace.ivmm("stop", name)
        self.end(main, ["trap", "trap-2"])

    def test_a_hook_that_fails(self):
        """Then there is no clone, and nothing of it; the guest goes on."""
        main = self.start_writer()
        self.refused("Permission denied", "--hook", "/etc/passwd", code=2)
        self.refused("nonexistent", "--hook", "/nonexistent", code=2)
        self.refused("exit code 3", "--hook", self.script("fails", "echo here >&2; exit 3"))
        self.refused("'hello'", "--hook", self.script("talks", "echo hello"))
        self.refused("not in the guest's memory", "--hook",
                     self.script("far", f"echo memory {1 << 40} 00"))
        child = self.workspace.path / "child"
        begin = time.monotonic()
        self.refused("takes too long", "--hook-timeout", "1", "--hook",
                     self.script("sleeps", f"sleep 1000 & echo $! >{child}; wait"))
        self.assertLess(time.monotonic() - begin, 30)
        self.assertTrue(harness.eventually(
            lambda: not os.path.exists(f"/proc/{int(child.read_text())}/exe")))
        self.assert_passes(main, since=len(main.console))
        clone = self.clone()
        self.assert_passes(clone)
        clone.end()
        self.end(main, [clone.name])


class RedactTest(overlay_test.OverlayTest):
    snapshot = None  # harness.LinuxSnapshot

    def test_a_linux_guest_whose_clone_has_other_secrets(self):
        """In a file that it has read, in a variable of its shell, in a file that only the disk has."""
        self.mount(lower=self.snapshot.path)
        main = harness.Restored(self.workspace, self.snapshot.path / "snapshot", "linux",
                                "--disk", self.mnt / "disk.ext4", "--no-recycle")
        self.addCleanup(main.close)
        main.type("\n")
        main.wait_for(harness.LinuxSnapshot.PROMPT)
        shell = harness.Shell(main)
        # Put together there, so that it is not in what was typed.
        shell.run("word=tr0ub4; word=${word}dor-and-3; echo $word >/root/read; sync; cat /root/read")
        shell.run("echo other-$word >/root/unread; sync; echo 3 >/proc/sys/vm/drop_caches")
        secrets = self.workspace.path / "secrets"
        secrets.write_text("tr0ub4dor-and-3\tcorrect-horse-1\n")
        hook = self.workspace.path / "hook"
        hook.write_text(f"#!/bin/sh\nexec {harness.IVMM} redact {secrets}\n")
        hook.chmod(0o700)
        done = self.workspace.ivmm("fork", "linux", "--name", "trap", "--json", "--hook", hook)
        self.assertEqual(done.returncode, 0, done.stderr)
        print(f"the hook took {json.loads(done.stdout)['hook_us'] / 1000:.0f} ms", flush=True)
        clone = harness.Program([harness.IVMM, "console", "trap"], self.workspace.environment)
        self.addCleanup(clone.close)
        trap = harness.Shell(clone)
        for one, word in ((shell, "tr0ub4dor-and-3"), (trap, "correct-horse-1")):
            self.assertEqual(one.run("cat /root/read; echo $word; cat /root/unread").split(),
                             [word, word, f"other-{word}"])
        self.assertIn("1 secrets:", (self.workspace.path / "ivmm/trap.log").read_text())
        for name in ("trap", "linux"):
            self.workspace.ivmm("stop", name)
        self.assertEqual(self.workspace.ivmm("rm", "trap").returncode, 0)


if __name__ == "__main__":
    harness.require_kvm()
    overlay_test.require_fuse()
    harness.enter_own_network()
    RedactTest.snapshot = harness.LinuxSnapshot(harness.LinuxImages())
    harness.main()
