#!/usr/bin/env python3
"""The evidence of clones, read with other people's tools."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time

import harness
from forks import ForkCase

WRITES = "op=verify interval_ms=50 start=8 size=32 fill=1 rate=100 stride=0"


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class EvidenceTest(ForkCase):
    def setUp(self):
        super().setUp()
        self.out = self.workspace.path / "out"
        self.disk = self.workspace.path / "disk.img"
        self.disk.write_bytes(b"what the attacker sees".ljust(1 << 20, b"\0"))
        self.main = self.start("dirty", "--mem", "64M", "--disk", self.disk, cmdline=WRITES)
        self.main.wait_for("generation=")

    def end(self, *clones):
        for clone in clones:
            self.workspace.ivmm("stop", clone.name)
            clone.wait_end()
            self.assertEqual(self.workspace.ivmm("rm", clone.name).returncode, 0)
        self.workspace.ivmm("stop", "main")
        self.assertEqual(self.main.wait_end(), 0)
        self.assert_nothing_but_logs()

    def evidence(self, clone):
        done = self.workspace.ivmm("evidence", clone, self.out, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([p.name for p in self.out.parent.glob("out*")], ["out"])
        run("sha256sum", "--strict", "-c", "SHA256SUMS", cwd=self.out)
        manifest = json.loads((self.out / "manifest.json").read_text())
        there = sorted(str(p.relative_to(self.out)) for p in self.out.rglob("*") if p.is_file())
        self.assertEqual(sorted(file["name"] for file in manifest["files"])
                         + ["SHA256SUMS", "manifest.json"], sorted(there, key=lambda n: (
                             n in ("SHA256SUMS", "manifest.json"), n)))
        for file in manifest["files"]:
            self.assertEqual((self.out / file["name"]).stat().st_size, file["bytes"])
        return manifest

    def check_disk(self):
        raw = self.workspace.path / "disk.raw"
        run("qemu-img", "check", self.out / "disk0.qcow2")
        run("qemu-img", "convert", "-O", "raw", self.out / "disk0.qcow2", raw)
        self.assertTrue(raw.read_bytes().startswith(b"what the attacker sees"))

    def test_a_clone_that_runs(self):
        clone = self.clone("--name", "trap")
        self.assert_passes(clone)
        manifest = self.evidence("trap")
        print(f"it stood still for {manifest['pause_us']:.0f} µs", flush=True)
        self.assertEqual((manifest["clone"], manifest["primary"], manifest["running"]),
                         ("trap", "main", True))
        self.check_disk()
        self.assert_passes(clone, since=len(clone.console))
        self.assertEqual(json.loads((self.out / "clone.json").read_text())["clone"], "trap")

        # The memory: what a debugger reads, and what the guest has written into it.
        core = self.out / "memory.elf"
        gdb = run("gdb", "-batch", "-nx", "-ex", "info registers rip cs", "-ex", "x/gx 0x865008",
                  "-c", core)
        self.assertRegex(gdb, r"rip +0x")
        page, word = 100, 1
        expected = ((page << 32 | word) * 0x9e3779b97f4a7c15) % (1 << 64)
        self.assertIn(f"0x865008:\t0x{expected:016x}", gdb)
        segments = re.findall(r"LOAD +0x(\w+) 0x(\w+) 0x(\w+)\s+0x(\w+)",
                              run("readelf", "-lW", core))
        self.assertEqual([(int(s[1], 16), int(s[3], 16)) for s in segments], [(0, 64 << 20)])
        self.assertLess(core.stat().st_blocks * 512, 48 << 20)  # pages of zeroes are holes

        again = self.workspace.ivmm("evidence", "trap", self.out)
        self.assertEqual(again.returncode, 2)
        self.assertIn("is there already", again.stderr)
        self.end(clone)

    def test_a_clone_that_has_ended(self):
        clone = self.clone("--name", "trap")
        clone.end()
        manifest = self.evidence("trap")
        self.assertFalse(manifest["running"])
        self.assertIn("memory: the clone does not run any more", manifest["missing"])
        self.check_disk()
        nobody = self.workspace.ivmm("evidence", "nobody", self.workspace.path / "none")
        self.assertEqual(nobody.returncode, 1)
        self.assertIn("no clone 'nobody'", nobody.stderr)
        self.end(clone)

    def test_a_clone_that_writes_no_disk(self):
        self.workspace.ivmm("stop", "main")
        self.assertEqual(self.main.wait_end(), 0)
        self.main = self.start("dirty", "--mem", "64M", "--disk", f"{self.disk},ro", cmdline=WRITES)
        self.main.wait_for("generation=")
        clone = self.clone("--name", "trap")
        self.assertIn("memory.elf", [file["name"] for file in self.evidence("trap")["files"]])
        self.check_disk()
        self.end(clone)

    def test_an_export_that_fails_leaves_nothing(self):
        clone = self.clone("--name", "trap")
        full = self.workspace.path / "full"
        full.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=8m", "none", full)
        self.addCleanup(run, "umount", full)
        failed = self.workspace.ivmm("evidence", "trap", full / "out")
        self.assertEqual(failed.returncode, 1)
        self.assertIn("No space left", failed.stderr)
        self.assertEqual(list(full.iterdir()), [])
        self.assert_passes(clone, since=len(clone.console))

        # One that is killed leaves what does not look whole; a signal leaves nothing.
        for ending in (signal.SIGINT, signal.SIGKILL):
            export = subprocess.Popen([harness.IVMM, "evidence", "trap", self.out],
                                      env=self.workspace.environment, stderr=subprocess.PIPE)
            partial = pathlib.Path(f"{self.out}.partial")
            harness.eventually(partial.exists, interval=0.001)
            export.send_signal(ending)
            export.communicate()
            if export.returncode == 0:
                # It was quicker.
                self.assertTrue((self.out / "SHA256SUMS").exists())
                run("rm", "-r", self.out)
                continue
            self.assertFalse(self.out.exists())
            self.assertEqual(partial.exists(), ending == signal.SIGKILL)
            if ending == signal.SIGKILL:
                refused = self.workspace.ivmm("evidence", "trap", self.out)
                self.assertIn("one that was killed; remove it", refused.stderr)
                run("rm", "-r", partial)
        # The disks of a snapshot that nobody has waited for are clones' like others.
        time.sleep(1)
        for name in os.listdir(self.workspace.path / "ivmm"):
            if name.startswith("trap-") and name.endswith(".clone"):
                self.workspace.ivmm("rm", name.removesuffix(".clone"))
        self.assert_passes(clone, since=len(clone.console))
        self.end(clone)


if __name__ == "__main__":
    harness.require_kvm()
    harness.enter_own_network()
    harness.main()
