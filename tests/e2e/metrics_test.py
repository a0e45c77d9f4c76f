#!/usr/bin/env python3
"""`ivmm metrics`: what every process counts, for Prometheus and Grafana."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import harness
from live_site import LiveTest, port_of

DOCS = pathlib.Path(__file__).parents[2] / "docs"
SAMPLE = re.compile(r'(\w+)(?:\{(.*)\})? (\S+)')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

# Prints as JSON what the client library of Prometheus finds in a text.
READ = """
import json, sys
from prometheus_client.parser import text_string_to_metric_families as families
read = [[s.name, s.labels, s.value] for f in families(sys.stdin.read()) if f.type != "unknown"
        for s in f.samples]
json.dump(read, sys.stdout)
"""


def samples(text):
    """(name, labels, value) of each."""
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = SAMPLE.fullmatch(line).groups()
            yield name, dict(LABEL.findall(labels or "")), float(value)


def families(text):
    return set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))


class MetricsTest(LiveTest):
    def text(self):
        return self.site.ivmm("metrics")

    def value(self, name, text=None, **labels):
        found = [value for sample, having, value in samples(text or self.text())
                 if sample == name and labels.items() <= having.items()]
        self.assertEqual(len(found), 1, f"{name} {labels}: {found}")
        return found[0]

    def listen(self, *arguments):
        program = self.site.run("metrics", "--listen", "127.0.0.1:0", *arguments, until="process")
        self.addCleanup(program.close)
        return program, port_of(program)

    def get(self, port, path="/metrics", method="GET", **headers):
        return super().get(port, path, method, **headers)

    def test_prometheus_reads_the_text(self):
        text = self.text()
        # Debian's interpreter, which has Debian's module.
        read = subprocess.run(["/usr/bin/python3", "-c", READ], input=text, text=True,
                              capture_output=True, check=True)
        self.assertEqual(read.stderr, "")
        there = [[name, labels, value] for name, labels, value in samples(text)]
        self.assertEqual(json.loads(read.stdout), there)
        self.assertEqual(len(there), len({(name, *sorted(labels.items()))
                                          for name, labels, _ in there}), "a sample is there twice")

    def test_numbers(self):
        text = self.text()
        for labels in ({"guest": "main"}, {"guest": "trap"}, {"switch": "lan"}, {"watch": "main"}):
            self.assertEqual(self.value("ivmm_up", text, **labels), 1)
        self.assertEqual(self.value("ivmm_clone_info", text, guest="trap", primary="main"), 1)
        self.assertEqual(self.value("ivmm_guest_memory_bytes", text, guest="main"), 64 << 20)
        self.assertGreater(self.value("ivmm_guest_memory_private_bytes", text, guest="main"),
                           48 << 20)
        self.assertEqual(self.value("ivmm_guest_memory_shared_bytes", text, guest="main"), 0)
        self.assertGreater(self.value("ivmm_guest_memory_shared_bytes", text, guest="trap"),
                           48 << 20)
        self.assertEqual(self.value("ivmm_guest_clones", text, guest="main"), 1)
        self.assertEqual(self.value("ivmm_fork_pause_seconds_count", text, guest="main"), 1)
        self.assertGreater(self.value("ivmm_fork_pause_seconds_sum", text, guest="main"), 0)
        self.assertEqual(self.value("ivmm_fork_start_seconds_bucket", text, guest="main",
                                    le="+Inf"), 1)
        self.site.attack(30)
        self.assertTrue(harness.eventually(
            lambda: self.value("ivmm_switch_clone_flows", clone="trap") == 30))
        self.assertEqual(self.value("ivmm_switch_diversions", text), 1)
        self.assertEqual(self.value("ivmm_overlay_layers", text, mountpoint=str(self.site.mnt)), 2)
        self.assertEqual(self.value("ivmm_watch_alerts_total", text, watch="main"), 0)

    def test_the_documentation_and_the_dashboard_name_what_there_is(self):
        there = families(self.text())
        table = set(re.findall(r"^\| `(ivmm_\w+)`", (DOCS / "metrics.md").read_text(),
                               re.MULTILINE))
        self.assertEqual(table, there)
        text = (DOCS / "grafana-dashboard.json").read_text()
        panels = json.loads(text)["panels"]
        expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
        self.assertGreater(len(expressions), 10)
        for expression in expressions:
            named = set(re.findall(r"ivmm_\w+", expression))
            self.assertTrue(named, expression)
            self.assertEqual({re.sub(r"_(bucket|sum|count)$", "", name) for name in named} - there,
                             set(), expression)

    def test_over_http(self):
        _, port = self.listen()
        status, headers, text = self.get(port)
        self.assertEqual(status, 200)
        self.assertEqual(headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        self.assertEqual(families(text), families(self.text()))
        self.assertEqual(self.get(port, method="HEAD")[2], "")
        self.assertEqual(self.get(port, "/nothing")[0], 404)
        self.assertEqual(self.get(port, method="POST")[0], 405)
        for host in ("localhost", f"127.0.0.1:{port}", f"[::1]:{port}", "192.0.2.1"):
            self.assertEqual(self.get(port, Host=host)[0], 200, host)
        for host in ("evil.example", f"localhost.evil.example:{port}", "127.0.0.1.evil.example", ""):
            self.assertEqual(self.get(port, Host=host)[0], 421, host)
        _, named = self.listen("--host-name", "host.example")
        self.assertEqual(self.get(named, Host=f"Host.Example:{named}")[0], 200)

    def test_hostile_clients(self):
        server, port = self.listen()
        for request in (b"\0" * 100_000, b"GET /" + b"a" * 1_000_000, b"GET /metrics HTTP/9.9\r\n\r\n",
                        b"GET /metrics HTTP/1.1\r\n\r\n",
                        b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
                        b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 100_000):
            with socket.create_connection(("127.0.0.1", port), 60) as client:
                try:
                    client.sendall(request)
                    client.shutdown(socket.SHUT_WR)
                    answer = client.recv(65536)
                except OSError:  # it has hung up
                    answer = b""
                self.assertNotIn(b" 200 ", answer[:20])
        # Those who connect and say nothing do not keep others out for longer than ten seconds.
        silent = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(100)]
        self.assertEqual(harness.eventually(lambda: self.try_get(port), 60), 200)
        for one in silent:
            one.close()
        self.assertIsNone(server.process.poll())

    def try_get(self, port):
        try:
            return self.get(port)[0]
        except OSError:
            return None

    def test_one_that_hangs_and_one_that_was_killed(self):
        _, port = self.listen()
        trap = self.site.workspace.ivmm("status", "trap", "--json").stdout
        os.kill(json.loads(trap)["pid"], signal.SIGSTOP)
        try:
            begun = time.monotonic()
            text = self.get(port)[2]
            print(f"with one that hangs: {time.monotonic() - begun:.1f} s")
            self.assertEqual(self.value("ivmm_up", text, guest="trap"), 0)
            self.assertEqual(self.value("ivmm_up", text, guest="main"), 1)
        finally:
            os.kill(json.loads(trap)["pid"], signal.SIGCONT)
        self.assertTrue(harness.eventually(
            lambda: self.value("ivmm_up", self.get(port)[2], guest="trap") == 1))
        self.site.ivmm("fork", "main", "--name", "victim")
        victim = json.loads(self.site.ivmm("status", "victim", "--json"))["pid"]
        self.assertTrue(harness.eventually(
            lambda: "victim" in self.get(port)[2] and
            self.value("ivmm_up", self.get(port)[2], guest="victim") == 1))
        os.kill(victim, signal.SIGKILL)
        self.assertTrue(harness.eventually(
            lambda: self.value("ivmm_up", self.get(port)[2], guest="victim") == 0))

    def test_addresses(self):
        refused = self.site.workspace.ivmm("metrics", "--listen", "0.0.0.0:0")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("--anyone", refused.stderr)
        for wrong in ("nothing", "127.0.0.1", "127.0.0.1:99999", "203.0.113.77:80"):
            refused = self.site.workspace.ivmm("metrics", "--listen", wrong)
            self.assertIn(refused.returncode, (1, 2), wrong)
            self.assertIn(wrong, refused.stderr)
        _, port = self.listen()
        taken = self.site.workspace.ivmm("metrics", "--listen", f"127.0.0.1:{port}")
        self.assertIn("in use", taken.stderr)
        open_to_all = self.site.run("metrics", "--listen", "0.0.0.0:0", "--anyone", until="process")
        open_to_all.process.terminate()
        self.assertEqual(open_to_all.wait_end(), 0)

    def test_an_empty_host(self):
        empty = harness.Workspace()
        self.addCleanup(empty.close)
        done = empty.ivmm("metrics")
        self.assertEqual((done.returncode, families(done.stdout)), (0, {"ivmm_collect_seconds"}))


if __name__ == "__main__":
    harness.require_kvm()
    harness.enter_own_network()
    harness.main()
