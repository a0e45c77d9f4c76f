#!/usr/bin/env python3
"""`ivmm watch`: alerts of Suricata, of detectors and of programs lead to forks and diversions."""

import json
import os
import pathlib
import re
import signal
import socket
import struct
import threading
import time
import unittest

import harness
from cables import Cable

GUEST_IP, ATTACKER = "192.0.2.10", "198.51.100.7"
GUEST_MAC, PEER_MAC = "02:00:00:00:00:10", "02:00:00:00:00:20"
DOCUMENTATION = pathlib.Path(__file__).parents[2] / "docs" / "watch.md"
FLOOD = 10_000


def eve(attacker=ATTACKER, number=0, **alert):
    """An alert as Suricata 7 writes it, set off by what the server has answered."""
    return json.dumps({
        "timestamp": f"2026-02-08T17:00:14.{number % 1_000_000:06}+0000", "flow_id": 1180526643469803,
        "in_iface": "mirror0", "event_type": "alert", "src_ip": GUEST_IP, "src_port": 80,
        "dest_ip": attacker, "dest_port": 49759, "proto": "TCP", "pkt_src": "wire/pcap",
        "alert": {"action": "allowed", "gid": 1, "signature_id": 2018358, "rev": 10,
                  "signature": "ET EXPLOIT Some Overflow", "category": "Attempted Admin",
                  "severity": 1, **alert},
        "app_proto": "http", "direction": "to_client",
        "flow": {"pkts_toserver": 6, "pkts_toclient": 3, "bytes_toserver": 532,
                 "bytes_toclient": 4556, "start": "2026-02-08T17:00:14.078254+0000",
                 "src_ip": attacker, "dest_ip": GUEST_IP, "src_port": 49759, "dest_port": 80}})


def tcp(source, source_port, port, flags, payload=b"", back=False):
    """A frame between a peer and the guest; `back`: the guest's."""
    macs = [bytes.fromhex(mac.replace(":", "")) for mac in (GUEST_MAC, PEER_MAC)]
    addresses = [socket.inet_aton(source), socket.inet_aton(GUEST_IP)]
    ports = [source_port, port]
    if back:
        for ends in (macs, addresses, ports):
            ends.reverse()
    segment = struct.pack(">HHIIBBHHH", *ports, 1, 1, 0x50, flags, 1024, 0, 0) + payload
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 1, 0, 64, 6, 0, *addresses)
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
    return macs[0] + macs[1] + b"\x08\x00" + header + segment


SYN, RST, SYN_ACK, ACK = 0x02, 0x04, 0x12, 0x10


def call(path, method, **params):
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(60)
        control.connect(str(path))
        control.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method,
                                    "params": params}).encode() + b"\n")
        return json.loads(control.makefile().readline())


class PlayedGuest(threading.Thread):
    """A guest's control socket, where forks take their time."""

    def __init__(self, path, seconds):
        super().__init__(daemon=True)
        self.seconds, self.forks = seconds, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client:
                request = json.loads(client.makefile().readline())
                self.forks.append(request)
                time.sleep(self.seconds)
                answer = {"jsonrpc": "2.0", "id": request["id"]}
                if self.seconds:
                    answer["result"] = {"clone": f"web-clone-{len(self.forks)}", "pause_us": 800.0,
                                        "trigger_to_run_us": 4000.0, "net_hold_us": 900.0,
                                        "held_frames": 1}
                else:
                    answer["error"] = {"code": -32000, "message": "no memory"}
                client.sendall(json.dumps(answer).encode() + b"\n")

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class WatchCase(unittest.TestCase):
    def setUp(self):
        self.workspace = harness.Workspace()
        self.addCleanup(self.workspace.close)
        self.runtime = self.workspace.path / "ivmm"
        self.runtime.mkdir(mode=0o700)
        self.eve = self.workspace.path / "eve.sock"
        self.log = self.workspace.path / "decisions.json"

    def start(self, *arguments, first="runs"):
        process = harness.Program([harness.IVMM, *arguments], self.workspace.environment)
        self.addCleanup(process.close)
        process.wait_for(first, 60)
        return process

    def watch(self, rules, *arguments):
        path = self.workspace.path / "rules.toml"
        path.write_text(rules)
        return self.start("watch", path, "--guest", "web", "--eve", self.eve, "--log", self.log,
                          *arguments)

    def send(self, *lines):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.settimeout(60)
            client.connect(str(self.eve))
            for line in lines:
                client.send(line.encode() if isinstance(line, str) else line)

    def ask(self, method, **params):
        answer = call(self.runtime / "watch" / "web.sock", method, **params)
        self.assertIn("result", answer)
        return answer["result"]

    def wait_for_status(self, condition, seconds=60):
        status = harness.eventually(
            lambda: (s := self.ask("status")) and condition(s) and s, seconds, 0.05)
        self.assertTrue(status, self.ask("status"))
        return status

    def decisions(self, event=None):
        lines = [json.loads(line) for line in self.log.read_text("ascii").splitlines()]
        return [line for line in lines if event in (None, line["eventid"].split(".")[-1])]


class WatchTest(WatchCase):
    FORK = '[[rule]]\nname = "exploit"\nseverity = 1\naction = "fork"\nttl_s = 60\n'

    def play(self, seconds=0.3):
        guest = PlayedGuest(self.runtime / "web.sock", seconds)
        self.addCleanup(guest.close)
        return guest

    def test_the_example_of_the_documentation(self):
        rules = re.search(r"```toml\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL).group(1)
        self.watch(rules, "--dry-run")
        self.send(eve())
        status = self.wait_for_status(lambda s: s["alerts"] == 1)
        self.assertEqual(status["withheld"]["allow-list"], 1)
        self.send(eve("203.0.113.5"))
        status = self.wait_for_status(lambda s: s["alerts"] == 2)
        self.assertEqual((status["dry_run"], status["decided"]["fork"]), (True, 1))
        decision, = self.decisions("fork")
        self.assertTrue(decision["dry_run"])
        self.assertEqual((decision["src_ip"], decision["rule"]), ("203.0.113.5", "exploit"))

    def test_an_alert_forks_the_guest(self):
        guest = self.play()
        self.watch(self.FORK)
        self.send(eve())
        self.wait_for_status(lambda s: s["done"]["fork"] == 1)
        fork, = guest.forks
        cause = fork["params"].pop("cause")
        self.assertEqual((fork["method"], fork["params"]),
                         ("fork", {"divert": {"remote": ATTACKER, "scope": "ip+new-flows",
                                              "ttl_s": 60}}))
        decided, done = self.decisions()
        self.assertEqual(cause, {"rule": "exploit", "attacker": ATTACKER,
                                 "reason": decided["reason"], "alert": decided["alert"]})
        self.assertEqual(decided["eventid"], "ivmm.watch.fork")
        self.assertEqual((decided["src_ip"], decided["src_port"], decided["sensor"]),
                         (ATTACKER, 49759, "web"))
        self.assertIn("rule 'exploit': eve 2018358 'ET EXPLOIT Some Overflow'", decided["reason"])
        self.assertEqual((done["eventid"], done["outcome"]["clone"]),
                         ("ivmm.watch.done", "web-clone-1"))
        self.send(eve(number=1))
        self.wait_for_status(lambda s: s["withheld"]["cool-down"] == 1)

    def test_what_is_said_of_the_clone(self):
        """A policy in a file beside the rules, and a lifetime."""
        guest = self.play()
        policy = self.runtime / "clone.toml"
        policy.write_text('preset = "strict"\n')
        self.watch(self.FORK + f'policy = "{policy}"\nlifetime_s = 3600\n')
        self.send(eve())
        self.wait_for_status(lambda s: s["done"]["fork"] == 1)
        params = guest.forks[0]["params"]
        self.assertEqual((params["divert"]["policy"], params["lifetime_s"]), (str(policy), 3600))

    def test_a_flow_alone(self):
        guest = self.play()
        self.watch(self.FORK + 'scope = "flow"\n')
        self.send(eve())
        self.wait_for_status(lambda s: s["done"]["fork"] == 1)
        self.assertEqual(guest.forks[0]["params"]["divert"],
                         {"remote": ATTACKER, "remote_port": 49759, "ttl_s": 60})

    def test_a_fork_that_fails(self):
        self.play(seconds=0)
        watch = self.watch(self.FORK)
        self.send(eve())
        self.wait_for_status(lambda s: s["failed"]["fork"] == 1)
        self.assertEqual(self.decisions("failed")[0]["reason"], "no memory")
        self.assertIn("no memory", watch.log)

    def check_flood(self, alerts, forks):
        guest = self.play()
        self.watch("forks_per_hour = 4\n" + self.FORK)
        begun = time.monotonic()
        self.send(*alerts)
        sent = time.monotonic() - begun
        status = self.wait_for_status(
            lambda s: s["alerts"] == len(alerts) and s["under_way"] == 0)
        print(f"{len(alerts)} alerts in {sent:.2f} s, all seen after "
              f"{time.monotonic() - begun:.2f} s; {len(guest.forks)} forks")
        self.assertLess(sent, 5)
        self.assertEqual(len(guest.forks), forks)
        self.assertEqual(status["done"]["fork"], forks)
        self.assertEqual(sum(status["withheld"].values()), len(alerts) - forks)
        self.assertLess(len(self.decisions()), 200)
        self.assertEqual(len(self.decisions("done")), forks)

    def test_a_flood_of_one_attacker(self):
        self.check_flood([eve(number=i) for i in range(FLOOD)], 1)

    def test_a_flood_of_many_attackers(self):
        self.check_flood([eve(f"10.0.{i >> 8}.{i & 255}") for i in range(FLOOD)], 4)

    def test_malformed_alerts_are_counted_and_skipped(self):
        self.watch('[[rule]]\nname = "all"\naction = "log"\n')
        self.send(b"\xff\xfe", "{", eve()[:100], "[" * 1000, "x" * 100_000, eve(severity="bad"),
                  eve("nobody"), '{"event_type":"flow"}',
                  eve(signature="\x1b[2J\x9b\u202e\n{\"eventid\":\"forged\"}"))
        status = self.wait_for_status(lambda s: s["alerts"] == 1)
        self.assertEqual((status["malformed"], status["other_events"]), (7, 1))
        decision, = self.decisions()
        self.assertEqual(decision["alert"]["signature"],
                         "\x1b[2J\x9b\u202e\n{\"eventid\":\"forged\"}")
        self.assertTrue(self.log.read_text("ascii")[:-1].isprintable())

    def test_the_file_makes_up_for_the_socket(self):
        file = self.workspace.path / "eve.json"
        file.write_text(eve(number=99) + "\n")
        self.watch('[[rule]]\nname = "all"\naction = "log"\n', "--eve-file", file)
        self.send(eve(number=1), eve(number=2))
        self.wait_for_status(lambda s: s["alerts"] == 2)
        with open(file, "a", encoding="utf-8") as appended:
            for number in (1, 2, 3):
                appended.write(eve(number=number) + "\n")
        status = self.wait_for_status(lambda s: s["alerts"] == 3)
        self.assertEqual((status["duplicates"], status["reconciled"]), (2, 1))
        file.rename(file.with_suffix(".1"))
        file.write_text(eve(number=4) + "\n")
        self.wait_for_status(lambda s: s["reconciled"] == 2)
        self.send(eve(number=4))
        self.wait_for_status(lambda s: s["duplicates"] == 3)

    def test_sockets_are_left_and_taken_properly(self):
        rules = '[[rule]]\nname = "all"\naction = "log"\n'
        watch = self.watch(rules)
        second = self.workspace.ivmm("watch", self.workspace.path / "rules.toml", "--guest", "web")
        self.assertEqual(second.returncode, 1)
        self.assertIn("'web' is running", second.stderr)
        other = self.workspace.ivmm("watch", self.workspace.path / "rules.toml", "--guest", "db",
                                    "--eve", self.eve)
        self.assertEqual(other.returncode, 1)
        self.assertIn("somebody uses the socket", other.stderr)
        self.send(eve())
        self.wait_for_status(lambda s: s["alerts"] == 1)
        watch.process.kill()
        watch.wait_end()
        self.assertTrue(self.eve.exists())
        watch = self.watch(rules)
        self.send(eve())
        self.wait_for_status(lambda s: s["alerts"] == 1)
        watch.process.send_signal(signal.SIGTERM)
        self.assertEqual(watch.wait_end(), 0)
        self.assertFalse(self.eve.exists())
        self.assertEqual(list((self.runtime / "watch").iterdir()), [])

    def test_it_ends_while_a_fork_is_under_way(self):
        guest = self.play(seconds=30)
        watch = self.watch(self.FORK)
        self.send(eve())
        self.assertTrue(harness.eventually(lambda: guest.forks))
        watch.process.send_signal(signal.SIGTERM)
        self.assertEqual(watch.wait_end(10), 0)

    def test_what_is_wrong_with_the_rules(self):
        path = self.workspace.path / "rules.toml"
        path.write_text('[[rule]]\nname = "x"\naction = "kill"\n')
        done = self.workspace.ivmm("watch", path, "--guest", "web")
        self.assertEqual((done.returncode, done.stderr),
                         (2, f"ivmm: {path}:1: a rule needs an action: fork, divert or log\n"))


class WatchSwitchTest(WatchCase):
    """With a switch, whose guests are played."""

    DIVERT = '[[rule]]\nname = "trap"\naction = "divert"\nclone = "trap"\nttl_s = 600\n'

    def setUp(self):
        super().setUp()
        self.start_switch()

    def start_switch(self, *arguments):
        self.process = self.start("switch", "run", "lan", *arguments)
        cables = str(self.runtime / "switch" / "lan.cables")
        self.guest = Cable(cables, "web", GUEST_MAC)
        self.peer = Cable(cables, "peer", PEER_MAC)
        for end in (self.guest, self.peer):
            self.addCleanup(end.close)
        added = self.workspace.ivmm("switch", "add-clone", "web", "trap")
        self.assertEqual(added.returncode, 0, added.stderr)
        # So that the switch knows where they are.
        self.put(self.guest, tcp(ATTACKER, 9, 9, RST, back=True))

    def end_switch(self):
        self.process.close()
        for end in (self.guest, self.peer):
            end.close()

    def put(self, end, *frames):
        for frame in frames:
            end.send(frame)

    def switch(self, method, **params):
        answer = call(self.runtime / "switch" / "lan.sock", method, **params)
        self.assertIn("result", answer)
        return answer["result"]

    def diverted(self):
        return {(one["remote"], one["clone"], one["scope"])
                for one in self.switch("status")["diversions"]}

    def wait_diverted(self, *remotes):
        wanted = {(remote, "trap", "ip+new-flows") for remote in remotes}
        self.assertTrue(harness.eventually(lambda: self.diverted() >= wanted), self.diverted())

    def test_an_alert_diverts_to_a_clone(self):
        self.watch(self.DIVERT + "count = 3\n")
        self.send(eve(), eve(), eve("203.0.113.5"))
        self.wait_for_status(lambda s: s["unmatched"] == 3)
        self.send(eve())
        self.wait_for_status(lambda s: s["done"]["divert"] == 1)
        self.assertEqual(self.diverted(), {(ATTACKER, "trap", "ip+new-flows")})
        self.assertTrue(0 < self.switch("status")["diversions"][0]["left_s"] <= 600)

    def test_any_program_may_say_so(self):
        self.watch(self.DIVERT + 'source = ["fail2ban"]\n')
        self.assertEqual(self.ask("alert", source="other", remote=ATTACKER)["decision"], "none")
        answer = self.ask("alert", source="fail2ban", remote=ATTACKER, remote_port=4000,
                          signature="5 failures", severity=1)
        self.assertEqual((answer["decision"], answer["rule"]), ("divert", "trap"))
        self.assertIn("fail2ban '5 failures'", answer["reason"])
        self.wait_diverted(ATTACKER)
        wrong = call(self.runtime / "watch" / "web.sock", "alert", source="x", remote="nobody")
        self.assertIn("not an IP address", wrong["error"]["message"])

    def test_detectors(self):
        self.watch(self.DIVERT + """
            [detect]
            addresses = ["203.0.113.0/24"]
            decoy_ports = [2222]
            scan = { ports = 10, within_s = 30 }
            logins = { ports = [22], count = 4, within_s = 60, short_s = 20 }
            """)
        listed, decoy, scanner, breaker, good = (
            "203.0.113.9", "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4")
        self.put(self.peer, tcp(listed, 1000, 80, SYN), tcp(decoy, 1000, 2222, SYN),
                 *(tcp(scanner, 1000, port, SYN) for port in range(1, 12)))
        for port in range(1000, 1005):
            self.put(self.peer, tcp(breaker, port, 22, SYN), tcp(good, port, 80, SYN))
            self.put(self.guest, tcp(breaker, port, 22, SYN_ACK, back=True),
                     tcp(good, port, 80, SYN_ACK, back=True))
        # They are not failures before they end.
        self.wait_diverted(listed, decoy, scanner)
        time.sleep(1)
        self.assertEqual(len(self.diverted()), 3)
        self.put(self.peer, *(tcp(breaker, port, 22, RST) for port in range(1000, 1005)))
        self.wait_diverted(breaker)
        self.assertEqual(len(self.diverted()), 4)
        reasons = {line["src_ip"]: line["alert"]["source"] for line in self.decisions("divert")}
        self.assertEqual(reasons, {listed: "address-list", decoy: "decoy", scanner: "scan",
                                   breaker: "logins"})

    def test_the_switch_starts_again(self):
        """Its flows have new numbers then."""
        self.watch(self.DIVERT + "[detect]\ndecoy_ports = [2222]\n")
        for port in range(100):
            self.put(self.peer, tcp("198.51.100.50", 1000 + port, 80, SYN))
        self.put(self.peer, tcp("198.51.100.51", 1000, 2222, SYN))
        self.wait_diverted("198.51.100.51")
        self.end_switch()
        self.start_switch()
        self.put(self.peer, tcp("198.51.100.52", 1000, 2222, SYN))
        self.wait_diverted("198.51.100.52")

    @unittest.skipIf(os.geteuid() != 0, "a TAP needs root")
    def test_payloads(self):
        self.end_switch()
        self.start_switch("--mirror", "mirror0")
        self.watch('home = ["192.0.2.10"]\n' + self.DIVERT +
                   '[detect]\npayloads = ["/bin/sh -i"]\n', "--mirror", "mirror0")
        self.put(self.peer, tcp("198.51.100.1", 1000, 80, ACK, b"GET /"),
                 tcp("198.51.100.2", 1000, 80, ACK, b"GET /;/bin/sh -i"))
        self.wait_diverted("198.51.100.2")
        self.assertEqual(len(self.diverted()), 1)


@unittest.skipUnless(os.access("/dev/kvm", os.R_OK | os.W_OK), "needs /dev/kvm")
class WatchForkTest(WatchCase):
    """With a switch and a guest of flesh and blood."""

    def setUp(self):
        super().setUp()
        self.start("switch", "run", "lan")
        self.guest = harness.Guest(
            self.workspace, "web", "--no-acpi", "--mem", "64M", "--net", "switch=lan", "--kernel",
            harness.GUESTS / "dirty.elf", "--cmdline",
            "op=verify interval_ms=50 start=8 size=32 fill=1 rate=100 stride=0")
        self.addCleanup(self.guest.close)
        self.guest.wait_for("generation=")
        done = self.workspace.ivmm("standby", "web")
        self.assertEqual(done.returncode, 0, done.stderr)

    def diversions(self):
        done = self.workspace.ivmm("switch", "status", "--json")
        return json.loads(done.stdout)["diversions"]

    def check_clone(self, name):
        status = json.loads(self.workspace.ivmm("status", name, "--json").stdout)
        self.assertEqual(status["state"], "running")
        self.workspace.ivmm("stop", name)
        self.assertEqual(self.workspace.ivmm("rm", name).returncode, 0)

    def test_an_alert_forks_the_guest(self):
        self.watch(WatchTest.FORK)
        self.send(eve())
        self.wait_for_status(lambda s: s["done"]["fork"] == 1)
        done, = self.decisions("done")
        outcome = done["outcome"]
        print(f"clone {outcome['clone']}: pause {outcome['pause_us']:.0f} µs, runs after "
              f"{outcome['trigger_to_run_us'] / 1000:.1f} ms")
        diversion, = self.diversions()
        self.assertEqual((diversion["guest"], diversion["clone"], diversion["remote"],
                          diversion["scope"]),
                         ("web", outcome["clone"], ATTACKER, "ip+new-flows"))
        self.assertTrue(0 < diversion["left_s"] <= 60)
        self.check_clone(outcome["clone"])

    def test_a_flood_forks_a_few_times(self):
        self.watch("forks_per_hour = 2\n" + WatchTest.FORK)
        self.send(*(eve(f"10.0.{i >> 8}.{i & 255}") for i in range(FLOOD)))
        status = self.wait_for_status(lambda s: s["alerts"] == FLOOD and s["under_way"] == 0)
        self.assertEqual(status["done"]["fork"], 2)
        self.assertEqual(status["withheld"]["rate-cap"], FLOOD - 2)
        self.assertEqual({one["remote"] for one in self.diversions()}, {"10.0.0.0", "10.0.0.1"})
        clones = {line["outcome"]["clone"] for line in self.decisions("done")}
        self.assertEqual(len(clones), 2)
        for clone in clones:
            self.check_clone(clone)


if __name__ == "__main__":
    if os.geteuid() == 0:
        harness.enter_own_network()
    harness.main()
