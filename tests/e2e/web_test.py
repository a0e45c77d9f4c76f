#!/usr/bin/env python3
"""`ivmm web`: the page in a browser, and what it is served with."""

import json
import re
import shutil
import subprocess
import tempfile

import harness
from live_site import ATTACKER, LiveTest, port_of


class WebTest(LiveTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.site.run("web", "--listen", "127.0.0.1:0", until="process")
        cls.port = port_of(cls.server)

    def browse(self, *options):
        """What a browser makes of the page within some seconds."""
        with tempfile.TemporaryDirectory() as profile:
            done = subprocess.run(
                ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom", *options,
                 f"http://127.0.0.1:{self.port}/"],
                capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, done.stderr

    def test_the_page_shows_what_runs(self):
        self.assertTrue(shutil.which("chromium"), "chromium is missing")
        self.site.attack(7)
        page, log = self.browse("--enable-logging=stderr")
        for text in ("main", "trap", "in-sync", ATTACKER, "lan", str(self.site.mnt),
                     "Flows of trap: 7", "1 of 1</b>", 'class="dot s0"', 'class="series s0"'):
            self.assertIn(text, page)
        self.assertNotIn("Content Security Policy", log)
        self.assertNotIn("Uncaught", log)

    def test_a_process_that_ends_is_seen(self):
        self.site.ivmm("fork", "main", "--name", "second")
        self.site.ivmm("stop", "second")
        self.assertIn("Clones that have ended", self.browse()[0])
        self.site.ivmm("rm", "second")
        self.assertNotIn("Clones that have ended", self.browse()[0])

    def test_nothing_comes_from_elsewhere(self):
        for path in ("/", "/page.js", "/style.css", "/icon.svg"):
            status, headers, text = self.get(self.port, path)
            self.assertEqual(status, 200, path)
            self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
            named = set(re.findall(r"https?://[^\s\"')]*", text))
            self.assertLessEqual(named, {"http://www.w3.org/2000/svg"}, path)
            self.assertNotIn("innerHTML", text)

    def test_state_and_metrics(self):
        status, headers, text = self.get(self.port, "/api/state.json")
        self.assertEqual((status, headers["Content-Type"]), (200, "application/json"))
        shown = json.loads(text)
        printed = json.loads(self.site.ivmm("top", "--json"))
        self.assertEqual(shown.keys(), printed.keys())
        self.assertEqual([guest["name"] for guest in shown["guests"]],
                         [guest["name"] for guest in printed["guests"]])
        self.assertIn('ivmm_up{guest="main"} 1', self.get(self.port, "/metrics")[2])

    def test_it_is_read_only(self):
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            self.assertEqual(self.get(self.port, "/api/state.json", method)[0], 405, method)
        self.assertEqual(self.get(self.port, "/../../etc/passwd")[0], 404)

    def test_it_ends(self):
        with self.site.run("web", "--listen", "127.0.0.1:0", until="process") as other:
            other.process.terminate()
            self.assertEqual(other.wait_end(), 0)


if __name__ == "__main__":
    harness.require_kvm()
    harness.enter_own_network()
    harness.main()
