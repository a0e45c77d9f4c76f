#!/usr/bin/env python3
"""Forks to another host: memory and disks of primary and clone, links that are slow or cut, hosts
that are not to be trusted."""

import collections
import json
import os
import pathlib
import random
import re
import signal
import socket
import ssl
import struct
import subprocess
import time

import fork_linux_test
import forks
import harness
import linux_guest_test
import two_hosts

LISTEN = f"{two_hosts.ADDRESSES[1]}:{two_hosts.PORT}"


class ReplicateSteps(forks.SelfCheckingCase):
    """What the tests have in common."""

    to = LISTEN

    def setUp(self):
        self.pair = two_hosts.Pair()
        self.addCleanup(self.pair.close)
        self.first, self.second = self.pair.first, self.pair.second

    def listen(self, *arguments):
        listener = self.second.program("standby", "--listen", LISTEN, "--key", self.second.keys,
                                       *arguments)
        self.addCleanup(listener.close)
        listener.wait_for("standbys for other hosts")
        return listener

    def start(self, guest, *arguments, cmdline=""):
        main = harness.Guest(
            self.first, "main", "--no-acpi", "--kernel", harness.GUESTS / f"{guest}.elf",
            *arguments, "--cmdline", cmdline,
        )
        self.addCleanup(main.close)
        return main

    def start_writer(self, memory="64M", rate=50, size=16, *arguments):
        main = self.start("dirty", "--mem", memory, *arguments, cmdline=(
            f"op=verify interval_ms=50 start=8 size={size} fill=1 rate={rate} stride=0"))
        main.wait_for("generation=")
        return main

    def replicate(self, code=0, to=LISTEN):
        self.to = to
        done = self.first.ivmm("replicate", "main", to, "--key", self.first.keys)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        print((done.stdout + done.stderr).strip(), flush=True)
        return done.stderr if code else done.stdout

    def status(self):
        return forks.standby_status(self.first)

    def wait_in_sync(self):
        self.assertTrue(harness.eventually(lambda: self.status()["phase"] == "in-sync", 60),
                        self.status())

    def fork(self, *arguments):
        done = self.first.ivmm("fork", "main", "--json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        print(
            f"{report['clone']} at {report['where']}: pause {report['pause_us']:.0f} µs"
            f" ({report['residual_pages']} pages {report['residual_copy_us']:.0f}, state"
            f" {report['state_us']:.0f}, disks {report['disk_fork_us']:.0f}), {report['rounds']}"
            f" rounds, runs after {report['trigger_to_run_us'] / 1000:.1f} ms", flush=True)
        self.assertEqual(report["where"], self.to)
        return report

    def clone(self, *arguments):
        report = self.fork(*arguments)
        console = self.second.program("console", report["clone"])
        console.report = report
        console.name = report["clone"]
        self.addCleanup(console.close)
        return console

    def end(self, clone):
        self.assertEqual(self.second.ivmm("stop", clone.name).returncode, 0)
        clone.wait_end()
        self.assertTrue(harness.eventually(
            lambda: self.second.ivmm("rm", clone.name).returncode == 0))

    def assert_main_is_well(self, main):
        self.assertEqual(main.status()["state"], "running")
        self.assert_passes(main, since=len(main.console))

    def assert_nothing_left(self, *but):
        """Once the guest and all clones have ended."""
        for host in (self.first, self.second):
            host.ivmm("ls")
            self.assertEqual([n for n in host.leftovers() if n not in but and n != "overlay"], [])
            self.assertEqual([p for p in host.disks.iterdir() if p.name != "stores"], [])


class ReplicateTest(ReplicateSteps):
    # What works.

    def test_clones_follow_each_other(self):
        listener = self.listen()
        main = self.start_writer(rate=100)
        self.assertIn("in sync", self.replicate())
        for _ in range(5):
            self.wait_in_sync()
            clone = self.clone()
            self.assertFalse(clone.report["waited_for_sync"])
            self.assertEqual(self.second.guests(), [clone.name])
            self.assert_passes(clone)
            self.assert_main_is_well(main)
            self.end(clone)
        # What the next ones begin with is a copy at the other host: little is sent again.
        sent = self.status()["sent_bytes"]
        print(f"{sent >> 20} MiB sent in all", flush=True)
        clone = self.clone("--name", "trap")
        listener.process.send_signal(signal.SIGTERM)
        self.assertEqual(listener.wait_end(), 0)
        self.assert_passes(clone, since=len(clone.console))
        self.assert_main_is_well(main)
        self.end(clone)
        self.first.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)
        self.assert_nothing_left()

    def test_how_clones_live_is_said_there(self):
        """Whatever the primary's host has for its own."""
        seen = self.second.path / "seen"
        hook = self.second.path / "hook"
        hook.write_text(f"#!/bin/sh\nenv | grep ^IVMM_ | sort >{seen}\n"
                        f"echo memory {(8 << 20) + 101 * 4096 + 8} a5a5a5a5a5a5a5a5\n")
        hook.chmod(0o700)
        self.listen("--hook", hook, "--lifetime", "5")
        main = self.start_writer("64M", 50, 16, "--hook", "/bin/false", "--lifetime", "600")
        self.replicate()
        self.wait_in_sync()
        done = self.first.ivmm("fork", "main", "--hook", "/bin/true")
        self.assertEqual(done.returncode, 1)
        self.assertIn("ivmm standby --listen", done.stderr)
        clone = self.clone("--name", "trap")
        self.assertGreater(clone.report["hook_us"], 0)
        clone.wait_for("mismatch cpu=0 page=100 word=1 found=0xa5a5a5a5a5a5a5a5")
        self.assertRegex(seen.read_text(), "^IVMM_CLONE=trap\nIVMM_GUEST=main\nIVMM_MEMORY=.*\n$")
        clone.wait_end(60)
        self.assert_main_is_well(main)
        self.assertEqual(self.second.ivmm("rm", "trap").returncode, 0)
        self.first.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)

    def test_two_cpus_and_memory_beyond_four_gigabytes(self):
        self.listen()
        main = self.start("dirty", "--mem", "4G", "--cpus", "2", cmdline=(
            "op=verify interval_ms=50 cpus=2 start=4G size=32 fill=1 rate=50 stride=0"))
        main.wait_for("generation=")
        self.replicate()
        clone = self.clone()
        self.assert_passes(clone)
        self.assert_main_is_well(main)
        self.end(clone)

    def check_disk(self, method, *listen):
        """A guest that writes all over its disk and reads it back, again and again."""
        disk = self.first.disks / "disk.img"
        disk.write_bytes(bytes(4 << 20))
        self.listen("--disks", self.second.disks, *listen)
        main = self.start("blk", "--mem", "64M", "--disk", disk,
                          cmdline="op=verify passes=0 n=256 bs=4096 qd=16")
        main.wait_for("op=check")
        self.replicate()
        for _ in range(3):
            self.wait_in_sync()
            clone = self.clone()
            self.assertEqual([d["method"] for d in clone.report["disks"]], [method])
            clone_disk = pathlib.Path(clone.report["disks"][0]["path"])
            self.assertTrue(clone_disk.exists())
            for console, since in ((clone, 0), (main, len(main.console))):
                self.assertTrue(
                    harness.eventually(lambda: console.console[since:].count("op=check") >= 3),
                    console.console + console.log)
                self.assertNotIn("FAILED", console.console)
                self.assertEqual(set(re.findall(r"errors=(\d+)", console.console)), {"0"})
            self.end(clone)
            self.assertFalse(clone_disk.exists())
            self.first.ivmm("rm", "--all")
        self.first.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)
        disk.unlink()
        self.assert_nothing_left()

    def test_a_disk_is_sent(self):
        self.check_disk("sent")

    def test_a_disk_in_a_shared_folder(self):
        here = self.pair.export(self.first.disks)
        self.check_disk("overlay", "--shared", f"{self.first.disks}={here}")

    # Links.

    def relay(self, delay=0.0):
        relay = two_hosts.Relay(delay)
        self.addCleanup(relay.close)
        return relay

    def test_a_slow_and_long_link(self):
        self.pair.slow_down("50mbit")
        relay = self.relay(delay=0.02)
        self.listen()
        main = self.start_writer("64M", 3, 8)
        self.replicate(to=relay.address)
        for _ in range(2):
            clone = self.clone()
            self.assertLess(clone.report["residual_pages"], 4097)
            self.assert_passes(clone)
            self.assert_main_is_well(main)
            self.end(clone)

    def test_a_link_that_is_too_slow(self):
        self.listen()
        main = self.start_writer("64M", 100, 48)
        self.replicate()
        self.pair.slow_down("2mbit")
        # Between two of its passes the guest writes nothing: a fork may be ready right then.
        self.assertTrue(harness.eventually(lambda: self.status()["lag_pages"] > 8 << 8))
        done = self.first.ivmm("fork", "main")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("lag behind", done.stderr)
        print(done.stderr.strip(), flush=True)
        self.assert_main_is_well(main)
        self.pair.speed_up()
        self.wait_in_sync()
        clone = self.clone()
        self.assert_passes(clone)
        self.end(clone)

    def test_a_link_that_is_cut_in_the_middle_of_the_first_copy(self):
        self.pair.slow_down("100mbit")
        self.listen()
        main = self.start_writer("64M", 20, 32)
        # Nothing is written, so that everything is sent once, or sent again.
        self.first.ivmm("pause", "main")
        with self.first.program("replicate", "main", LISTEN, "--key", self.first.keys) as call:
            self.assertTrue(harness.eventually(lambda: self.status()["sent_bytes"] > 24 << 20))
            self.pair.cut()
            before = self.status()
            self.assertTrue(harness.eventually(lambda: self.status()["error"]), self.status())
            self.assertEqual(self.status()["phase"], "building")
            self.pair.join()
            self.assertEqual(call.wait_end(120), 0, call.log)
        after = self.status()
        print(f"cut after {before['sent_bytes'] >> 20} MiB, {after['sent_bytes'] >> 20} MiB in all",
              flush=True)
        # What the guest writes is more than that link carries.
        self.pair.speed_up()
        self.first.ivmm("resume", "main")
        self.assert_main_is_well(main)
        clone = self.clone()
        self.assert_passes(clone)
        self.end(clone)
        with self.first.program("replicate", "main", "none:1", "--key", self.first.keys) as call:
            self.assertEqual(call.wait_end(), 1)
        self.first.ivmm("standby", "main", "--off")
        self.replicate()
        # Not begun anew: what had arrived is still there.
        whole = self.status()["sent_bytes"]
        self.assertLess(after["sent_bytes"], before["sent_bytes"] + whole - (8 << 20))

    def test_forks_that_are_cut_at_any_moment(self):
        disk = self.first.disks / "disk.img"
        disk.write_bytes(os.urandom(8 << 20))
        # So long that a cut comes in the middle of any step.
        relay = self.relay(delay=0.1)
        self.listen("--disks", self.second.disks)
        main = self.start_writer("64M", 20, 32, "--disk", disk)
        self.replicate(to=relay.address)
        begin = time.monotonic()
        clone = self.clone()
        takes = time.monotonic() - begin
        self.end(clone)
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", flush=True)
        moments = random.Random(seed)
        steps = collections.Counter()
        for number in range(20):
            self.wait_in_sync()
            with self.first.program("fork", "main", "--name", f"trap{number}") as call:
                time.sleep(moments.uniform(0, 1.1 * takes))
                relay.cut()
                code = call.wait_end()
            lines = call.log.strip().splitlines()
            # The cut may have come before the fork, which then has connected again.
            self.assertTrue(len(lines) == code or "not in sync" in call.log, call.log)
            lines = [line for line in lines if "not in sync" not in line]
            steps["done" if code == 0 else ": ".join(lines[0].split(": ")[1:4])[:70]] += 1
            self.assertEqual(main.status()["state"], "running")
            # A fork that has failed here has left nothing there.
            expected = [f"trap{number}"] if code == 0 else []
            self.assertTrue(harness.eventually(lambda: self.second.guests() in (expected, [])))
            if code != 0:
                self.assertTrue(harness.eventually(lambda: not list(self.second.disks.iterdir())))
            self.second.ivmm("stop", f"trap{number}")

            # Until that host knows that its clone is wanted, it is still being made there.
            def removed():
                self.second.ivmm("rm", "--all")
                return not list(self.second.disks.iterdir())

            self.assertTrue(harness.eventually(removed))
        for step, count in steps.items():
            print(f"{count} × {step}", flush=True)
        self.assert_main_is_well(main)
        self.first.ivmm("stop", "main")
        self.assertEqual(main.wait_end(), 0)
        disk.unlink()
        self.assert_nothing_left(*(f"trap{number}.log" for number in range(20)))

    # Hosts.

    def test_a_listener_that_is_killed(self):
        listener = self.listen()
        main = self.start_writer()
        self.replicate()
        os.kill(listener.process.pid, signal.SIGKILL)
        listener.wait_end()
        done = self.first.ivmm("fork", "main")
        self.assertEqual(done.returncode, 1, done.stdout)
        print(done.stderr.strip(), flush=True)
        self.assert_main_is_well(main)
        self.assertEqual(self.second.guests(), [])
        self.listen()
        self.wait_in_sync()
        clone = self.clone()
        self.assert_passes(clone)
        self.end(clone)

    def test_hosts_that_do_not_trust_each_other(self):
        self.listen()
        main = self.start_writer()
        for host, reason in ((self.second, "refuses this host"), (self.first, "has a key")):
            stranger = two_hosts.Host()
            self.addCleanup(stranger.close)
            pin = host.keys / "peers" / ("first.pem" if host is self.second else "second.pem")
            right = pin.read_bytes()
            pin.write_bytes((stranger.keys / "public.pem").read_bytes())
            self.assertIn(reason, self.replicate(code=1))
            pin.write_bytes(right)
        self.assertEqual(self.status()["phase"], "none")
        self.replicate()
        self.assert_main_is_well(main)

    def hostile(self):
        """A connection with a good key, and whatever to say."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(self.first.keys / "public.pem", self.first.keys / "private.pem")
        plain = socket.create_connection((two_hosts.ADDRESSES[1], two_hosts.PORT), 20)
        return context.wrap_socket(plain)

    def test_what_is_no_message_is_refused(self):
        listener = self.listen()

        def answer(*parts):
            with self.hostile() as connection:
                for part in parts:
                    connection.sendall(part)
                connection.settimeout(30)
                said = b""
                try:
                    while data := connection.recv(65536):
                        said += data
                except OSError:
                    pass
                return said.decode(errors="replace")

        hello, pages = 101, 104
        self.assertIn("no message 0", answer(bytes(12)))
        self.assertIn("cannot have", answer(struct.pack("<3I", hello, 1 << 30, 0)))
        self.assertIn("cannot have", answer(struct.pack("<3I", hello, 8, 8)))
        self.assertIn("message 104 where 101", answer(struct.pack("<3I", pages, 0, 0)))
        self.assertIn("format version 9", answer(struct.pack("<4I", hello, 4, 0, 9)))
        self.assertIn("unreadable", answer(struct.pack("<4I", hello, 4, 0, 1)))
        self.assertIn("unreadable",
                      answer(struct.pack("<4I", hello, 104, 0, 1), b"\xff" * 100))
        noise = random.Random(5)
        for _ in range(10):
            answer(noise.randbytes(noise.randrange(1, 300)))
        with socket.create_connection((two_hosts.ADDRESSES[1], two_hosts.PORT), 20) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            try:
                plain.recv(100)
            except OSError:
                pass
        self.assertIsNone(listener.process.poll())
        self.assertLess(len(listener.log.splitlines()), 10, listener.log)
        main = self.start_writer()
        self.replicate()
        clone = self.clone()
        self.assert_passes(clone)
        self.end(clone)
        self.assert_main_is_well(main)

    def test_names_and_networks_that_are_refused(self):
        self.listen()
        main = self.start_writer()
        self.replicate()
        clone = self.clone("--name", "trap")
        for reason, arguments in (("'trap'", ("--name", "trap")), ("network", ("--net", "tap=x"))):
            self.wait_in_sync()
            done = self.first.ivmm("fork", "main", *arguments)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(reason, done.stderr)
            print(done.stderr.strip(), flush=True)
        self.assert_passes(clone, since=len(clone.console))
        self.assert_main_is_well(main)
        self.end(clone)

    def test_a_snapshot_of_a_guest_that_is_replicated(self):
        self.listen()
        main = self.start_writer()
        self.replicate()
        done = self.first.ivmm("snapshot", "main", self.first.path / "snapshot")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.wait_in_sync()
        clone = self.clone()
        self.assert_passes(clone)
        self.end(clone)
        # More often than there may be replicas at a time: none is kept for a guest that is through
        # with it.
        for _ in range(20):
            self.first.ivmm("standby", "main", "--off")
            self.assertEqual(self.status()["phase"], "none")
            self.replicate()
        self.assert_main_is_well(main)


class ReplicateLinuxTest(ReplicateSteps):
    """A Linux server with its disk and its network: it and its clone at the other host go on."""

    def fetch(self, host):
        page = subprocess.run(
            [*host.prefix(), "curl", "-s", "-m", "20", f"http://{harness.LinuxSnapshot.ADDRESS}/"],
            capture_output=True, text=True)
        return page.stdout

    def test_both_go_on(self):
        images = harness.LinuxImages()
        snapshot = harness.LinuxSnapshot(images)
        net = f"tap=tap0,host={snapshot.HOST}"
        self.listen("--disks", self.second.disks, "--net", net)
        main = snapshot.start(self.first, "--net", net, name="main")
        self.addCleanup(main.close)
        shell = harness.Shell(main)
        shell.run("secret=from-before; cd /tmp")
        main.type(fork_linux_test.LOAD)
        self.replicate()
        for _ in range(2):
            self.wait_in_sync()
            clone = self.clone("--name", "trap")
            trap = harness.Shell(clone)
            for name, one in (("clone", trap), ("primary", shell)):
                self.assertIn("from-before /tmp", one.run("echo $secret $PWD"), name)
                before = int(one.run("tail -n 1 /root/count"))
                time.sleep(1)
                self.assertGreater(int(one.run("tail -n 1 /root/count")), before, name)
            self.assertIn("ivmm guest", self.fetch(self.first), "the primary serves")
            self.assertIn("ivmm guest", self.fetch(self.second), "the clone serves")

            # Clocks: neither has lost or won more than it takes to ask.
            begin = time.monotonic()
            ours = float(shell.run("cat /proc/uptime").split()[0])
            theirs = float(trap.run("cat /proc/uptime").split()[0])
            self.assertGreaterEqual(theirs, ours)
            self.assertLessEqual(theirs - ours, time.monotonic() - begin + 1)

            shell.run("echo primary >/root/mine; sync")
            trap.run("echo clone >/root/mine; echo more >/root/trapped; sync")
            self.assertIn("primary", shell.run("cat /root/mine"))
            self.assertIn("No such file", shell.run("cat /root/trapped"))
            self.assertNotRegex(trap.run("dmesg"), fork_linux_test.TROUBLE)
            clone.type("poweroff\n")
            clone.wait_end()
            self.assertTrue(harness.eventually(lambda: self.second.guests() == []))
            disk = clone.report["disks"][0]["path"]
            check = linux_guest_test.fsck(disk)
            self.assertEqual(check.returncode, 0, check.stdout)
            self.assertEqual(linux_guest_test.file_in(disk, "/root/mine"), "clone\n")
            self.assertEqual(self.second.ivmm("rm", "trap").returncode, 0)
        self.assertNotRegex(shell.run("dmesg"), fork_linux_test.TROUBLE)
        main.type("poweroff\n")
        self.assertEqual(main.wait_end(), 0, main.log)
        self.assert_nothing_left("trap.log")


if __name__ == "__main__":
    harness.require_kvm()
    harness.enter_own_network()
    harness.main()
