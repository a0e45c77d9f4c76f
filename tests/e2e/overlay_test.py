#!/usr/bin/env python3
"""The union overlay as its users see it: commands, mounts, forks, and what a crash leaves."""

import json
import os
import pathlib
import signal
import subprocess
import unittest

import harness

FAILED = 1
USAGE = 2
BLOCK = 4096


def require_fuse():
    if os.geteuid() != 0:
        harness.skip("mounting needs root")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        harness.skip(f"/dev/fuse: {error.strerror}")


def mounts_below(folder):
    """What is mounted there, the last one first."""
    lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in reversed(points) if point.startswith(f"{folder}/")]


def is_alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # who reaps it is not ivmm's business


def close(file):
    """Closes a file whose mount may have gone: the kernel reports that, and closes it."""
    try:
        os.close(file)
    except OSError:
        pass


class OverlayTest(unittest.TestCase):
    def setUp(self):
        self.workspace = harness.Workspace()
        self.addCleanup(self.workspace.close)
        self.addCleanup(self.unmount_all)
        self.base = self.folder("base")
        self.patches = self.folder("patches")
        self.upper = self.workspace.path / "upper"
        self.mnt = self.folder("mnt")
        (self.base / "etc").mkdir()
        (self.base / "etc/passwd").write_text("root")
        (self.base / "etc/motd").write_text("old")
        (self.base / "dir").mkdir()
        (self.base / "dir/file").write_text("in a directory")
        (self.patches / "etc").mkdir()
        (self.patches / "etc/motd").write_text("patched")
        with open(self.base / "disk.img", "wb") as disk:
            disk.write(b"b" * BLOCK * 256)

    def folder(self, name):
        path = self.workspace.path / name
        path.mkdir()
        return path

    def servers(self):
        runtime = self.workspace.path / "ivmm/overlay"
        return sorted(int(p.stem) for p in runtime.glob("*.lock")) if runtime.exists() else []

    def unmount_all(self):
        """After a test that has failed: no server, no mount."""
        for pid in self.servers():
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        for point in mounts_below(self.workspace.path):
            subprocess.run(["umount", "-l", point], check=False)

    def overlay(self, *arguments, code=0):
        done = self.workspace.ivmm("overlay", *arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def overlay_json(self, *arguments):
        return json.loads(self.overlay(*arguments, "--json").stdout)

    def refuse(self, code, *reasons, arguments):
        done = self.overlay(*arguments, code=code)
        self.assertEqual(done.stdout, "")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        for reason in reasons:
            self.assertIn(reason, done.stderr)

    def mount(self, mnt=None, **more):
        options = {"lower": f"{self.patches}:{self.base}", "upper": self.upper, **more}
        text = ",".join(f"{key}={value}" for key, value in options.items() if value is not None)
        self.overlay("mount", "-o", text, mnt or self.mnt)

    def pid_of(self, mnt):
        return self.overlay_json("status", mnt)["pid"]

    def expect_nothing_left(self, pid):
        self.assertTrue(harness.eventually(lambda: not is_alive(pid)), "the server still runs")
        self.assertEqual(mounts_below(self.workspace.path), [])
        runtime = self.workspace.path / "ivmm/overlay"
        self.assertEqual([p.name for p in runtime.iterdir()], [])


class FlattenTest(OverlayTest):
    def freeze(self, times):
        """Layers that only main needs, with a file each."""
        for i in range(times):
            (self.mnt / f"file{len(os.listdir(self.mnt))}").write_text(str(i))
            self.overlay("fork", self.mnt, "copy")
            self.overlay("rm", self.mnt, "copy")

    def test_in_use(self):
        self.mount()
        disk = os.open(self.mnt / "disk.img", os.O_RDWR)
        self.addCleanup(close, disk)
        os.pwrite(disk, b"1", 0)
        self.freeze(4)
        (self.mnt / "etc/motd").unlink()
        self.freeze(1)
        names = sorted(os.listdir(self.mnt))
        self.assertEqual(self.overlay_json("status", self.mnt)["depth"], 8)

        report = self.overlay_json("flatten", self.mnt)
        self.assertEqual(report["view"], "main")
        self.assertEqual(report["kept"], [])
        self.assertEqual([len(run["layers"]) for run in report["merged"]], [5])
        self.assertEqual(self.overlay_json("status", self.mnt)["depth"], 4)
        self.assertEqual(sorted(os.listdir(self.mnt)), names)
        self.assertEqual(os.listdir(self.mnt / "etc"), ["passwd"])
        os.pwrite(disk, b"2", BLOCK)
        self.assertEqual(os.pread(disk, 1, 0) + os.pread(disk, 1, BLOCK), b"12")
        os.close(disk)
        self.assertIn("nothing to flatten", self.overlay("flatten", self.mnt).stdout)

        # What others need stays apart, and without a server it is the same.
        self.freeze(1)
        self.overlay("fork", self.mnt, "kept")
        self.freeze(2)
        self.overlay("umount", self.mnt)
        done = self.overlay("flatten", self.upper).stdout
        self.assertIn("are one now", done)
        self.assertIn("also below kept", done)
        self.mount(lower=None)
        self.assertEqual((self.mnt / "disk.img").read_bytes()[:1], b"1")
        self.overlay("umount", self.mnt)
        self.overlay("check", self.upper)
        self.refuse(FAILED, "no view", arguments=["flatten", self.upper, "--view", "none"])

    def test_by_itself(self):
        self.mount(flatten=4)
        self.freeze(4)
        self.assertTrue(
            harness.eventually(lambda: self.overlay_json("status", self.mnt)["depth"] < 6)
        )
        self.overlay("umount", self.mnt)
        self.refuse(
            USAGE, "flatten", arguments=["mount", "-o", f"upper={self.upper},flatten=1", self.mnt]
        )


class FilesTest(OverlayTest):
    def test_union(self):
        self.mount()
        self.assertEqual((self.mnt / "etc/motd").read_text(), "patched")
        self.assertEqual((self.mnt / "etc/passwd").read_text(), "root")
        self.assertEqual(sorted(os.listdir(self.mnt)), ["dir", "disk.img", "etc"])
        self.assertEqual(sorted(os.listdir(self.mnt / "etc")), ["motd", "passwd"])

        (self.mnt / "new").write_text("new")
        (self.mnt / "etc/passwd").write_text("changed")
        (self.mnt / "etc/motd").unlink()
        (self.mnt / "dir").rename(self.mnt / "moved")
        self.assertEqual(sorted(os.listdir(self.mnt)), ["disk.img", "etc", "moved", "new"])
        self.assertEqual(os.listdir(self.mnt / "etc"), ["passwd"])
        self.assertEqual((self.mnt / "moved/file").read_text(), "in a directory")

        self.overlay("umount", self.mnt)
        self.assertEqual((self.base / "etc/passwd").read_text(), "root")
        self.assertEqual((self.patches / "etc/motd").read_text(), "patched")
        self.mount(lower=None)  # the store knows its branches
        self.assertEqual(sorted(os.listdir(self.mnt)), ["disk.img", "etc", "moved", "new"])
        self.assertEqual((self.mnt / "etc/passwd").read_text(), "changed")
        self.overlay("umount", self.mnt)

    def test_blocks(self):
        self.mount()
        with open(self.mnt / "disk.img", "r+b") as disk:
            disk.seek(7 * BLOCK)
            disk.write(b"n" * BLOCK)
        expected = b"b" * BLOCK * 7 + b"n" * BLOCK + b"b" * BLOCK * 248
        self.assertEqual((self.mnt / "disk.img").read_bytes(), expected)
        self.overlay("umount", self.mnt)
        self.mount()
        self.assertEqual((self.mnt / "disk.img").read_bytes(), expected)
        self.overlay("umount", self.mnt)

    def test_read_only_union(self):
        self.overlay("mount", "-o", f"lower={self.patches}:{self.base}", self.mnt)
        self.assertEqual((self.mnt / "etc/motd").read_text(), "patched")
        with self.assertRaises(OSError):
            (self.mnt / "new").write_text("new")
        self.overlay("umount", self.mnt)

    def test_names_with_separators(self):
        odd = self.folder("a,b:c\\d e")
        (odd / "here").write_text("here")
        escaped = str(odd).replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")
        self.mount(lower=escaped)
        self.assertEqual((self.mnt / "here").read_text(), "here")
        self.overlay("umount", self.mnt)


class ForkTest(OverlayTest):
    def test_both_sides_go_on_independently(self):
        copy = self.folder("copy")
        self.mount()
        with open(self.mnt / "disk.img", "r+b", buffering=0) as disk, \
                open(self.mnt / "log", "wb", buffering=0) as log:
            disk.write(b"1" * BLOCK)
            log.write(b"before\n")
            report = self.overlay_json("fork", self.mnt, f"copy={copy}", "unused")
            # The files that were open stay on the side of the view that they were opened in.
            disk.write(b"2" * BLOCK)
            log.write(b"after\n")
        with open(copy / "disk.img", "r+b") as disk:
            disk.seek(2 * BLOCK)
            disk.write(b"3" * BLOCK)

        self.assertEqual([t["view"] for t in report["targets"]], ["copy", "unused"])
        self.assertEqual(report["targets"][0]["mountpoint"], str(copy))
        self.assertNotIn("mountpoint", report["targets"][1])
        layers = [report["layer"], *(t["layer"] for t in report["targets"])]
        self.assertEqual(len({report["frozen_layer"], *layers}), 4)
        self.assertGreaterEqual(report["pause_us"], report["drain_us"])

        self.assertEqual((self.mnt / "log").read_text(), "before\nafter\n")
        self.assertEqual((copy / "log").read_text(), "before\n")
        rest = b"b" * BLOCK
        self.assertEqual((self.mnt / "disk.img").read_bytes()[:4 * BLOCK],
                         b"1" * BLOCK + b"2" * BLOCK + rest * 2)
        self.assertEqual((copy / "disk.img").read_bytes()[:4 * BLOCK],
                         b"1" * BLOCK + rest + b"3" * BLOCK + rest)
        (copy / "log").unlink()
        self.assertTrue((self.mnt / "log").exists())
        (self.mnt / "etc").rename(self.mnt / "cte")
        self.assertEqual((copy / "etc/motd").read_text(), "patched")
        self.overlay("umount", copy, self.mnt)

    def test_fork_of_a_fork_and_a_view_mounted_later(self):
        copy, second = self.folder("copy"), self.folder("second")
        self.mount()
        (self.mnt / "file").write_text("0")
        self.overlay("fork", self.mnt, f"copy={copy}")
        (copy / "file").write_text("1")
        self.overlay("fork", copy, f"second={second}", "kept")
        (second / "file").write_text("2")
        (copy / "file").write_text("3")
        self.assertEqual([(p / "file").read_text() for p in (self.mnt, copy, second)],
                         ["0", "3", "2"])
        self.overlay("umount", "second", "copy", "main")
        self.mount(view="kept")
        self.assertEqual((self.mnt / "file").read_text(), "1")
        self.overlay("umount", "kept")

    def test_relative_paths(self):
        copy = self.folder("copy")
        self.mount()
        done = subprocess.run([harness.IVMM, "overlay", "fork", "mnt", "copy=copy"],
                              cwd=self.workspace.path, env=self.workspace.environment,
                              capture_output=True)
        self.assertEqual(done.returncode, 0)
        self.assertEqual((copy / "etc/motd").read_text(), "patched")
        self.overlay("umount", copy, self.mnt)

    def test_listing(self):
        copy = self.folder("copy")
        self.mount()
        (self.mnt / "file").write_bytes(b"x" * 100_000)
        report = self.overlay_json("fork", self.mnt, f"copy={copy}")
        pid = self.pid_of(self.mnt)

        rows = {row["view"]: row for row in self.overlay_json("status")}
        self.assertEqual(sorted(rows), ["copy", "main"])
        self.assertEqual(rows["copy"]["mountpoint"], str(copy))
        self.assertEqual(rows["copy"]["layer"], report["targets"][0]["layer"])
        self.assertEqual(rows["main"]["layer"], report["layer"])
        self.assertEqual(rows["main"]["store"], str(self.upper))
        self.assertEqual(rows["main"]["error"], "")
        self.assertEqual({row["pid"] for row in rows.values()}, {pid})
        table = self.overlay("status").stdout
        self.assertIn(str(copy), table)

        listing = self.overlay_json("ls", self.mnt)
        self.assertEqual(listing, self.overlay_json("ls", self.upper) |
                         {"layers": listing["layers"]})
        self.assertEqual([b["path"] for b in listing["branches"]],
                         [str(self.patches), str(self.base)])
        layers = {layer["number"]: layer for layer in listing["layers"]}
        frozen = layers[report["frozen_layer"]]
        self.assertIn(frozen["state"], ("frozen", "sealed"))
        self.assertGreaterEqual(frozen["bytes"], 100_000)
        for number, view in ((report["layer"], "main"), (rows["copy"]["layer"], "copy")):
            self.assertEqual(layers[number]["state"], "open")
            self.assertEqual(layers[number]["views"], [view])
            self.assertEqual(layers[number]["parent"], report["frozen_layer"])
        self.assertEqual([(v["name"], v["mounted"]) for v in listing["views"]],
                         [("copy", True), ("main", True)])
        self.overlay("umount", copy)
        self.refuse(FAILED, "main", arguments=["rm", self.mnt, "main"])
        self.overlay("rm", self.mnt, "copy")
        self.assertEqual([v["name"] for v in self.overlay_json("ls", self.mnt)["views"]],
                         ["main"])
        self.overlay("umount", self.mnt)
        self.refuse(FAILED, "copy", arguments=["rm", self.upper, "copy"])


class LifeTest(OverlayTest):
    def test_signals_end_it(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.mount()
            (self.mnt / "file").write_text(str(number))
            pid = self.pid_of(self.mnt)
            os.kill(pid, number)
            self.expect_nothing_left(pid)
        self.mount()
        self.assertEqual((self.mnt / "file").read_text(), str(number))
        self.overlay("umount", self.mnt)

    def test_in_the_foreground(self):
        server = subprocess.Popen(
            [harness.IVMM, "overlay", "mount", "-f", "-o",
             f"lower={self.base},upper={self.upper},view=v", self.mnt],
            env=self.workspace.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True)
        self.assertEqual(server.stdout.readline(), f"{self.mnt}: view v of {self.upper}\n")
        self.assertEqual(self.pid_of(self.mnt), server.pid)
        server.terminate()
        out, err = server.communicate(timeout=30)
        self.assertEqual((server.returncode, out, err), (0, "", ""))
        self.expect_nothing_left(server.pid)

    def test_umount_by_others_ends_it(self):
        self.mount()
        pid = self.pid_of(self.mnt)
        subprocess.run(["umount", self.mnt], check=True)
        self.expect_nothing_left(pid)

    def test_umount_waits_for_the_end(self):
        for _ in range(3):
            self.mount()
            pid = self.pid_of(self.mnt)
            self.overlay("umount", self.mnt)
            self.assertEqual(self.servers(), [])
        self.expect_nothing_left(pid)

    def test_umount_of_what_is_in_use(self):
        self.mount()
        pid = self.pid_of(self.mnt)
        file = os.open(self.mnt / "file", os.O_WRONLY | os.O_CREAT)
        self.addCleanup(close, file)
        self.refuse(FAILED, str(self.mnt), arguments=["umount", self.mnt])
        self.overlay("umount", "--force", self.mnt)
        self.expect_nothing_left(pid)

    def test_umount_of_what_another_mount_namespace_has(self):
        self.mount()
        pid = self.pid_of(self.mnt)
        # As a container or a service with mounts of its own has everything that was mounted.
        around = f"$(stat -c %m {self.mnt.parent})"  # the root directory may be no mount point
        look = f"mount --make-private {around} && echo ready; read line; cat {self.mnt}/file"
        with subprocess.Popen(["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", look],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as other:
            self.assertEqual(other.stdout.readline(), "ready\n")
            self.overlay("umount", self.mnt)
            self.expect_nothing_left(pid)
            _, errors = other.communicate("\n")
        self.assertRegex(errors, "not connected|Input/output error")

    def test_a_signal_ends_it_even_if_it_is_in_use(self):
        self.mount()
        pid = self.pid_of(self.mnt)
        file = os.open(self.mnt / "file", os.O_WRONLY | os.O_CREAT)
        self.addCleanup(close, file)
        os.write(file, b"written")
        os.kill(pid, signal.SIGTERM)
        self.expect_nothing_left(pid)
        self.mount()
        self.assertEqual((self.mnt / "file").read_text(), "written")
        self.overlay("umount", self.mnt)

    def test_one_server_per_view(self):
        other = self.folder("other")
        self.mount()
        pid = self.pid_of(self.mnt)
        self.refuse(FAILED, "main", str(pid), arguments=[
            "mount", "-o", f"upper={self.upper}", other])
        self.refuse(FAILED, "mounted", str(self.mnt), arguments=[
            "mount", "-o", f"upper={self.upper},view=other", self.mnt])
        self.assertEqual(self.servers(), [pid])
        self.overlay("umount", self.mnt)

    def test_killed_server(self):
        copy = self.folder("copy")
        self.mount()
        self.overlay("fork", self.mnt, f"copy={copy}")
        pid = self.pid_of(self.mnt)
        for folder in (self.mnt, copy):
            with open(folder / "disk.img", "r+b") as disk:
                disk.write(folder.name[:1].encode() * BLOCK)
                disk.flush()
                os.fsync(disk.fileno())
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(harness.eventually(lambda: not is_alive(pid)))
        for arguments in (["umount", self.mnt], ["status", self.mnt], ["fork", self.mnt, "x"],
                          ["mount", "-o", f"upper={self.upper}", self.mnt]):
            self.refuse(FAILED, "died", "overlay check", arguments=arguments)
        # One by its mount point, the other one by the store.
        self.assertEqual(self.overlay_json("check", self.mnt)["unmounted"], [str(self.mnt)])
        self.assertEqual(self.overlay_json("check", self.upper)["unmounted"], [str(copy)])
        self.expect_nothing_left(pid)
        self.assertIn("neither a dead mount nor a store", self.overlay("check", self.mnt).stdout)

        self.mount()
        self.mount(copy, view="copy")
        for folder in (self.mnt, copy):
            self.assertEqual((folder / "disk.img").read_bytes()[:BLOCK],
                             folder.name[:1].encode() * BLOCK)
        self.overlay("check", self.mnt)  # does nothing to one that lives
        self.assertEqual((self.mnt / "etc/motd").read_text(), "patched")
        self.overlay("umount", copy, self.mnt)


class UsageTest(OverlayTest):
    def test_bad_usage(self):
        for arguments in ([], ["frobnicate"], ["mount"], ["mount", self.mnt],
                          ["fork", self.mnt], ["umount"], ["rm", self.upper], ["ls"], ["check"]):
            done = self.overlay(*arguments, code=USAGE)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertIn("--help", done.stderr)
        for command in ("mount", "fork", "umount", "status", "ls", "rm", "check"):
            self.assertIn(f"ivmm overlay {command}", self.overlay(command, "--help").stdout)

    def test_bad_mounts(self):
        def refuse(options, *reasons, mnt=self.mnt):
            self.refuse(USAGE, *reasons, arguments=["mount", "-o", options, mnt])

        lower = f"lower={self.base}"
        refuse("frob=1", "frob", "lower=A:B")
        refuse("ro", "lower=", "upper=")
        refuse(f"{lower},{lower}", "twice")
        refuse(f"{lower}:", "empty")
        refuse(f"{lower},view=x", "upper=")
        refuse("lower=/nowhere", "lower", "/nowhere")
        refuse(f"{lower},upper=/nowhere/upper", "upper", "/nowhere")
        refuse(f"lower={self.base}/disk.img", "not a directory")
        refuse(lower, "mount point", "nowhere", mnt="/nowhere")
        refuse(lower, "mount point", "not a directory", mnt=self.base / "disk.img")
        refuse(f"lower={self.mnt}", "hidden")
        self.assertEqual(self.servers(), [])
        self.assertEqual(mounts_below(self.workspace.path), [])

    def test_upper_that_is_something_else(self):
        done = self.workspace.ivmm("overlay", "mount", "-o", f"upper={self.base}", self.mnt)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(str(self.base), done.stderr)
        self.assertEqual(mounts_below(self.workspace.path), [])
        self.assertEqual(sorted(os.listdir(self.base)), ["dir", "disk.img", "etc"])

    def test_nothing_there(self):
        self.assertEqual(self.overlay_json("status"), [])
        self.refuse(FAILED, "no overlay is mounted", arguments=["status", self.mnt])
        self.refuse(FAILED, "no overlay is mounted", arguments=["umount", self.mnt])
        self.refuse(FAILED, "nobody", arguments=["umount", "nobody"])
        self.refuse(FAILED, "no overlay is mounted", arguments=["fork", self.mnt, "x"])
        self.refuse(USAGE, "/nowhere", arguments=["check", "/nowhere"])


if __name__ == "__main__":
    require_fuse()
    harness.main()
