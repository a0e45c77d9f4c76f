"""The rounds of the scenario `intercept`, as a program in a network namespace of its own: prints a
line of JSON for each. usage: intercept_rounds.py ROUNDS (with the variables of the tests)"""

import datetime
import json
import pathlib
import re
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/e2e"))
import harness  # noqa: E402
import intercept_site  # noqa: E402

GUEST = intercept_site.GUEST
PING_SECONDS = 0.02
PATIENCE = 60
RULES = """
forks_per_hour = 1000
[[rule]]
name = "all"
source = ["eve"]
action = "fork"
"""
# Opens a connection; told to, sends a little again and again, so that there is something to answer.
TALK = """
import socket, sys, time
server = socket.create_connection((sys.argv[2], 80), 60, (sys.argv[1], 0))
server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
server.sendall(b"GET / HTTP/1.0\\r\\nX-A: ")
print(server.getsockname()[1], flush=True)
sys.stdin.readline()
for _ in range(100):
    server.sendall(b"a")
    time.sleep(0.005)
"""


def eve(address, port, number):
    flow = {"src_ip": address, "src_port": port, "dest_ip": GUEST, "dest_port": 80}
    return json.dumps({
        "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(), "flow_id": number,
        "event_type": "alert", **flow, "proto": "TCP", "flow": flow,
        "alert": {"action": "allowed", "gid": 1, "signature_id": 1000001, "rev": 1,
                  "signature": "bench", "category": "bench", "severity": 1}}).encode()


class Rounds:
    def __init__(self, site):
        self.site = site
        site.start()
        self.attacker = site.peer("att", "198.51.100")
        self.user = site.peer("usr", "203.0.113")
        rules = site.workspace.path / "rules.toml"
        rules.write_text(RULES)
        self.eve_path = str(site.workspace.path / "eve.sock")
        self.log = site.workspace.path / "decisions.json"
        site.program(harness.IVMM, "watch", rules, "--guest", intercept_site.NAME, "--eve",
                     self.eve_path, "--log", self.log).wait_for("runs")
        self.alerts = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ping = site.program(*self.user.prefix("ping", "-D", "-i", PING_SECONDS, GUEST))
        self.ping.wait_for("time=")

    def run(self, number):
        site = self.site
        address = self.attacker.addresses[number % len(self.attacker.addresses)]
        talk = site.program(*self.attacker.prefix("python3", "-c", TALK, address, GUEST))
        talk.wait_for("\n")
        site.ivmm("standby", intercept_site.NAME)
        time.sleep(1)
        before = len(self.decisions())
        alert = eve(address, int(talk.console), number)
        began = time.time()
        self.alerts.sendto(alert, self.eve_path)
        talk.type("\n")
        ended = harness.eventually(
            lambda: [one for one in self.decisions()[before:]
                     if one["eventid"] in ("ivmm.watch.done", "ivmm.watch.failed")], PATIENCE, 0.01)
        if not ended or ended[0]["eventid"] != "ivmm.watch.done":
            raise AssertionError(f"no fork at the alert: {ended}")
        talk.wait_end()
        report = ended[0]["outcome"]
        clone = report["clone"]
        site.remove(clone, address)
        return {
            "committed": (self.diverted(clone) - began) * 1000,
            "first_frame": (self.first_frame(clone) - began) * 1000,
            "pause": report["pause_us"], "net_commit": report["net_commit_us"],
            "hold": report["net_hold_us"], "held": report["held_frames"],
            "lost": report["refused_frames"],
            "user_round_trip": self.slowest_ping(began, began + 0.5),
            "user_round_trip_before": self.slowest_ping(began - 0.5, began),
        }

    def decisions(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()] \
            if self.log.exists() else []

    def diverted(self, clone):
        """When the switch has handed the flows to the clone."""
        for event in reversed(self.site.events()):
            if event["eventid"] == "ivmm.switch.divert" and event["port"] == clone:
                return datetime.datetime.fromisoformat(event["datetime"]).timestamp()
        raise AssertionError(f"{clone} was given nothing")

    def first_frame(self, clone):
        """When the clone has sent something for the first time."""
        capture = self.site.captures / f"{clone}.0001.pcapng"
        for line in subprocess.run(
                ["tshark", "-r", capture, "-T", "fields", "-e", "frame.interface_name", "-e",
                 "frame.time_epoch"], check=True, capture_output=True, text=True).stdout.splitlines():
            name, _, when = line.partition("\t")
            if name == "clone":
                return float(when)
        raise AssertionError(f"{clone} has sent nothing")

    def slowest_ping(self, begin, end):
        """In milliseconds, of those whose answer came in that time."""
        times = [float(took) for when, took in
                 re.findall(r"\[([\d.]+)\].*time=([\d.]+)", self.ping.console)
                 if begin <= float(when) <= end]
        return max(times) if times else (end - begin) * 1000


def main():
    images = harness.LinuxImages()
    site = intercept_site.Site(images, harness.LinuxSnapshot(images))
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        rounds = Rounds(site)
        for number in range(int(sys.argv[1])):
            print(json.dumps(rounds.run(number)), flush=True)
    finally:
        site.close()


if __name__ == "__main__":
    main()
