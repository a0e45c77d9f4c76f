#!/usr/bin/env python3
"""An attacker who is logged in to a Linux server is moved to its clone, and nobody else notices."""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import time
import unittest

import harness
import intercept_site
import linux_guest_test
import overlay_test
import peers

GUEST = intercept_site.GUEST
# Asks for the page, and says the end of its question when it is told to.
ASK = """
import socket, sys
server = socket.create_connection((sys.argv[2], 80), 60, (sys.argv[1], 0))
server.sendall(b"GET / HTTP/1.0\\r\\n")
print("asked", flush=True)
sys.stdin.readline()
server.sendall(b"\\r\\n")
page = b""
while data := server.recv(4096):
    page += data
sys.exit(0 if b"ivmm guest" in page else page.decode())
"""
ATTACKS = int(os.environ.get("IVMM_ATTACKS", "3"))
AT_ONCE = 5


def main_memory(guest):
    """Bytes that the guest's process and its standby have for themselves."""
    pid = guest.status()["pid"]
    total = 0
    for process in [pid, *pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]:
        rollup = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text()
        total += int(re.search(r"Pss:\s+(\d+)", rollup)[1]) << 10
    return total


class InterceptTest(unittest.TestCase):
    images = None
    snapshot = None  # harness.LinuxSnapshot

    def setUp(self):
        self.site = intercept_site.Site(self.images, self.snapshot)
        self.addCleanup(self.site.close)

    def test_a_session_goes_on_in_the_clone(self):
        site = self.site
        attacker, user = site.peer("att", "198.51.100"), site.peer("usr", "203.0.113")
        shell = site.start()
        shell.run("ln -s /bin/busybox /srv/www/big; echo first >/root/file")
        whole = shell.run("sha256sum /srv/www/big").split()[0]

        visitor = site.program(*user.prefix("python3", "-c", intercept_site.VISIT, f"http://{GUEST}/"))
        visitor.wait_for("ok")
        works = site.log_in(user)
        works.run("who=user; cd /srv")
        hacks = site.log_in(attacker)
        hacks.run("secret=seen-before; cd /tmp; { sleep 1000 & }")
        big = site.workspace.path / "big"
        download = site.program(*user.prefix(
            "curl", "-sS", "--limit-rate", "100K", "-o", big, f"http://{GUEST}/big"))
        time.sleep(1)

        report = site.ask("fork", "linux", "--name", "trap", "--attacker", attacker.address)
        print(f"pause {report['pause_us']:.0f} µs (switch {report['net_commit_us']:.0f}), "
              f"frames waited {report['net_hold_us']:.0f} µs: {report['held_frames']} and "
              f"{report['unread_frames']}; runs after {report['trigger_to_run_us'] / 1000:.1f} ms",
              flush=True)
        self.assertEqual(report["refused_frames"], 0)

        # He types on, where he was.
        begin = time.monotonic()
        self.assertIn("seen-before /tmp", hacks.run("echo $secret $PWD"))
        print(f"the attacker's next command took {time.monotonic() - begin:.1f} s", flush=True)
        self.assertIn("sleep 1000", hacks.run("ps"))
        hacks.run("echo evil >/root/file; echo evil >/root/dropped; sync")
        self.assertIn("user /srv", works.run("echo $who $PWD"))
        # Each side sees its own.
        self.assertIn("first", works.run("cat /root/file"))
        self.assertIn("No such file", works.run("cat /root/dropped"))
        self.assertIn("evil", site.console("trap").run("cat /root/file"))
        # A new connection of his is the clone's, one of the user's the primary's.
        self.assertIn("evil", site.log_in(attacker).run("cat /root/file"))
        self.assertIn("first", site.log_in(user).run("cat /root/file"))
        # He gets out to nobody, not even to whom he came from.
        for target in (user.address, attacker.address, "10.77.0.1"):
            self.assertNotIn("connected", hacks.run(
                f"timeout 3 nc {target} 22 </dev/null && echo connec''ted"))

        self.assertEqual(download.wait_end(120), 0, download.log)
        self.assertEqual(hashlib.sha256(big.read_bytes()).hexdigest(), whole)
        self.assertEqual(user.resets(), 0)
        self.assertEqual(attacker.resets(), 0)
        self.assertRegex(peers.run(*attacker.prefix("ss", "-tnio")), r"\bts\b")
        self.assertEqual(attacker.from_the_past(), 0)
        visitor.close()
        self.assertGreater(visitor.console.split("\n").count("ok"), 5)
        self.assertNotIn("failed", visitor.console)
        self.assertEqual(site.flow_owners(attacker.address), {"trap"})
        self.assertEqual(site.flow_owners(user.address), {"linux"})
        self.assertIn("ivmm.switch.contained", {event["eventid"] for event in site.events()})
        self.assertGreater((site.captures / "trap.0001.pcapng").stat().st_size, 1000)
        self.check_evidence(attacker)
        self.end(attacker, report)

    def check_evidence(self, attacker):
        """What the switch knows of the clone; evidence_test.py has the rest."""
        out = self.site.workspace.path / "evidence"
        done = self.site.workspace.ivmm("evidence", "trap", out)
        self.assertEqual(done.returncode, 0, done.stderr)
        peers.run("sh", "-c", f"cd {out} && sha256sum --strict -c SHA256SUMS")
        flows = json.loads((out / "flows.json").read_text())["flows"]
        self.assertIn((attacker.address, 22), {(one["remote"], one["local_port"]) for one in flows})
        self.assertEqual({one["owner"] for one in flows}, {"trap"})
        seen = peers.run("tshark", "-r", out / "captures/trap.0001.pcapng", "-T", "fields", "-e",
                         "ip.src")
        self.assertIn(attacker.address, seen)
        events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
        self.assertIn("ivmm.switch.contained", {event["eventid"] for event in events})
        self.assertEqual(linux_guest_test.file_in(
            self.raw(out / "disk0.qcow2"), "/root/dropped"), "evil\n")

    def raw(self, image):
        raw = image.with_suffix(".raw")
        peers.run("qemu-img", "convert", "-O", "raw", image, raw)
        return raw

    def end(self, attacker, report):
        """Everything is as it was before the fork."""
        site = self.site
        site.ivmm("stop", "trap")
        self.assertEqual(
            linux_guest_test.file_in(report["disks"][0]["path"], "/root/dropped"), "evil\n")
        removed = site.workspace.ivmm("rm", "trap")
        self.assertEqual(removed.returncode, 0, removed.stderr)
        self.assertIn(f"ivmm undivert linux --attacker {attacker.address}", removed.stderr)
        site.ivmm("undivert", "linux", "--attacker", attacker.address)
        self.assertIn("first", site.log_in(attacker).run("cat /root/file"))
        site.main.type("poweroff\n")
        self.assertEqual(site.main.wait_end(), 0, site.main.log)
        checked = linux_guest_test.fsck(site.disk)
        self.assertEqual(checked.returncode, 0, checked.stdout)

    # Many attacks. Each attacker has an address of his own and is in the middle of a question.

    def attack(self, attacker, number):
        """Connects, is moved to a clone, and goes on; the clone's name and his address."""
        address = attacker.addresses[number]
        question = self.site.program(*attacker.prefix("python3", "-c", ASK, address, GUEST))
        question.wait_for("asked")
        name = f"trap{number}"
        report = self.site.ask("fork", "linux", "--name", name, "--attacker", address)
        self.assertEqual(report["refused_frames"], 0)
        question.type("\n")
        self.assertEqual(question.wait_end(), 0, question.log)
        self.assertEqual(self.site.flow_owners(address), {name})
        return name, address

    def traces(self):
        """What clones could leave behind."""
        switch = self.site.ask("switch", "status")
        return {
            "ports": [port["name"] for port in switch["ports"]],
            "diversions": switch["diversions"],
            "mounts": overlay_test.mounts_below(self.site.workspace.path),
            "runtime": sorted(file.name for file in (self.site.workspace.path / "ivmm").iterdir()
                              if file.suffix != ".log"),
            "views": [view["name"] for view in
                      self.site.ask("overlay", "ls", self.site.store)["views"]],
        }

    def test_many_attacks(self):
        attacker = self.site.peer("att", "198.51.100")
        self.site.start()
        before = self.traces()
        first = None
        for number in range(ATTACKS):
            self.site.remove(*self.attack(attacker, number))
            self.site.ivmm("standby", "linux")
            self.assertEqual(self.traces(), before)
            memory = main_memory(self.site.main)
            first = first or memory
        print(f"{ATTACKS} attacks, memory {first >> 20} MiB after the first, {memory >> 20} after "
              "the last", flush=True)
        self.assertLess(memory, first + (16 << 20))

        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            clones = list(pool.map(lambda number: self.attack(attacker, ATTACKS + number),
                                   range(AT_ONCE)))
        self.assertEqual(len({name for name, _ in clones}), AT_ONCE)
        for name, address in clones:
            self.site.remove(name, address)
        self.assertEqual(self.traces(), before)


if __name__ == "__main__":
    harness.require_kvm()
    overlay_test.require_fuse()
    harness.enter_own_network()
    InterceptTest.images = harness.LinuxImages()
    InterceptTest.snapshot = harness.LinuxSnapshot(InterceptTest.images)
    harness.main()
