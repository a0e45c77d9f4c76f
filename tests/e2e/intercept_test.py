#!/usr/bin/env python3
"""An attacker who is logged in to a Linux server is moved to its clone, and nobody else notices."""

import hashlib
import json
import time

import fork_linux_test
import harness
import overlay_test
import peers

GUEST = harness.LinuxSnapshot.ADDRESS
HOST = harness.LinuxSnapshot.HOST
DISK = "disk.ext4"
# Fetches the page again and again, each time over a connection of its own.
VISIT = """
import sys, time, urllib.request
while True:
    try:
        urllib.request.urlopen(sys.argv[1], timeout=30).read()
        print("ok", flush=True)
    except OSError as error:
        print("failed:", error, flush=True)
    time.sleep(0.2)
"""


class InterceptTest(overlay_test.OverlayTest):
    images = None
    snapshot = None  # harness.LinuxSnapshot

    def peer(self, name, network):
        peer = peers.Peer(name, network)
        self.addCleanup(peer.close)
        return peer

    def program(self, *argv):
        program = harness.Program(argv, self.workspace.environment)
        self.addCleanup(program.close)
        return program

    def ssh(self, peer, *command):
        rootfs = self.images.rootfs
        return peer.prefix(
            "ssh", "-F", "none", "-i", rootfs / "id_ed25519", "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={rootfs / 'known_hosts'}", "-o", "HostKeyAlias=ivmm-guest",
            "-o", "ConnectTimeout=60", *command)

    def log_in(self, peer):
        """A person at a shell of the server, from another machine."""
        session = self.program(*self.ssh(peer, "-tt", f"root@{GUEST}"))
        session.wait_for("# ")
        return fork_linux_test.Shell(session)

    def console(self, guest):
        console = self.program(harness.IVMM, "console", guest)
        console.type("\n")
        console.wait_for("# ")
        return fork_linux_test.Shell(console)

    def ivmm(self, *arguments):
        done = self.workspace.ivmm(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def start_site(self):
        """The server, on an overlay and a switch, with a standby."""
        self.mount(lower=self.snapshot.path)
        self.captures = self.workspace.path / "captures"
        self.captures.mkdir()
        switch = self.program(
            harness.IVMM, "switch", "run", "lan", "--uplink", f"up0,host={HOST}", "--capture",
            self.captures, "--events", self.captures / "events.json")
        switch.wait_for("runs")
        peers.route_between()
        main = harness.Restored(self.workspace, self.snapshot.path / "snapshot", "linux",
                                "--disk", self.mnt / DISK, "--net", "switch=lan")
        self.addCleanup(main.close)
        main.type("\n")
        main.wait_for(harness.LinuxSnapshot.PROMPT)
        self.ivmm("standby", "linux")
        return main, fork_linux_test.Shell(main)

    def test_a_session_goes_on_in_the_clone(self):
        attacker = self.peer("att", "198.51.100")
        user = self.peer("usr", "203.0.113")
        main, shell = self.start_site()
        shell.run("ln -s /bin/busybox /srv/www/big; echo first >/root/file")
        whole = shell.run("sha256sum /srv/www/big").split()[0]

        visitor = self.program(*user.prefix("python3", "-c", VISIT, f"http://{GUEST}/"))
        visitor.wait_for("ok")
        works = self.log_in(user)
        works.run("who=user; cd /srv")
        hacks = self.log_in(attacker)
        hacks.run("secret=seen-before; cd /tmp; { sleep 1000 & }")
        big = self.workspace.path / "big"
        download = self.program(*user.prefix(
            "curl", "-sS", "--limit-rate", "100K", "-o", big, f"http://{GUEST}/big"))
        time.sleep(1)

        report = json.loads(self.ivmm("fork", "linux", "--name", "trap", "--attacker",
                                      attacker.address, "--json"))
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
        self.assertIn("evil", self.console("trap").run("cat /root/file"))
        # A new connection of his is the clone's, one of the user's the primary's.
        self.assertIn("evil", self.log_in(attacker).run("cat /root/file"))
        self.assertIn("first", self.log_in(user).run("cat /root/file"))
        # He gets out to nobody, not even to whom he came from.
        for target in (user.address, attacker.address, HOST.split("/")[0]):
            self.assertNotIn("connected", hacks.run(
                f"timeout 3 nc {target} 22 </dev/null && echo connec''ted"))

        self.assertEqual(download.wait_end(120), 0, download.log)
        self.assertEqual(hashlib.sha256(big.read_bytes()).hexdigest(), whole)
        visitor.close()
        visits = visitor.console.split("\n")
        self.assertGreater(visits.count("ok"), 5)
        self.assertNotIn("failed", visitor.console)
        self.assertEqual(user.resets(), 0)
        self.assertEqual(attacker.resets(), 0)
        self.check_flows(attacker, user)
        self.end(main, attacker, report)

    def check_flows(self, attacker, user):
        for peer, owner in ((attacker, "trap"), (user, "linux")):
            flows = json.loads(self.ivmm("flows", "linux", "--peer", peer.address,
                                         "--json"))["flows"]
            self.assertEqual({flow["owner"] for flow in flows}, {owner})
        events = [json.loads(line) for line in
                  (self.captures / "events.json").read_text().splitlines()]
        self.assertIn("ivmm.switch.contained", {event["eventid"] for event in events})
        self.assertGreater((self.captures / "trap.0001.pcapng").stat().st_size, 1000)

    def end(self, main, attacker, report):
        """Everything is as it was before the fork."""
        self.ivmm("stop", "trap")
        self.assertEqual(fork_linux_test.linux_guest_test.file_in(
            report["disks"][0]["path"], "/root/dropped"), "evil\n")
        removed = self.workspace.ivmm("rm", "trap")
        self.assertEqual(removed.returncode, 0, removed.stderr)
        self.assertIn(f"ivmm undivert linux --attacker {attacker.address}", removed.stderr)
        self.ivmm("undivert", "linux", "--attacker", attacker.address)
        self.assertIn("first", self.log_in(attacker).run("cat /root/file"))
        main.type("poweroff\n")
        self.assertEqual(main.wait_end(), 0, main.log)


if __name__ == "__main__":
    harness.require_kvm()
    overlay_test.require_fuse()
    harness.enter_own_network()
    InterceptTest.images = harness.LinuxImages()
    InterceptTest.snapshot = harness.LinuxSnapshot(InterceptTest.images)
    harness.main()
