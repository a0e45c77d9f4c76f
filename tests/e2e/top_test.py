#!/usr/bin/env python3
"""`ivmm top` on a terminal (tmux): what it shows, what its keys do, how it leaves the terminal."""

import json
import os
import pathlib
import shutil
import signal
import subprocess

import harness
from live_site import ATTACKER, LiveTest


class Terminal:
    """A shell in a terminal of its own."""

    number = 0

    def __init__(self, workspace, columns=130, rows=40):
        self.workspace = workspace
        Terminal.number += 1
        self.socket = workspace.path / f"tmux-{Terminal.number}"
        self.tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", workspace.path,
                  "env", "-i",
                  f"PATH={os.environ['PATH']}", f"XDG_RUNTIME_DIR={workspace.path}", "PS1=ready> ",
                  "TERM=screen", "sh")

    def tmux(self, *arguments):
        return subprocess.run(["tmux", "-f", "/dev/null", "-S", self.socket, *arguments], check=True,
                              capture_output=True, text=True).stdout

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def screen(self):
        return self.tmux("capture-pane", "-p")

    def shows(self, *texts):
        return harness.eventually(lambda: all(text in self.screen() for text in texts), 20)

    def resize(self, columns, rows):
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def child(self):
        """The pid of what runs in the shell."""
        shell = self.tmux("display-message", "-p", "#{pane_pid}").strip()
        return int(pathlib.Path(f"/proc/{shell}/task/{shell}/children").read_text().split()[0])

    def close(self):
        self.tmux("kill-server")


class TopTest(LiveTest):
    def setUp(self):
        self.terminal = Terminal(self.site.workspace)
        self.addCleanup(self.terminal.close)

    def check(self, seen, *texts):
        self.assertTrue(seen, f"{texts}:\n{self.terminal.screen()}")

    def expect(self, *texts):
        self.check(self.terminal.shows(*texts), *texts)

    def start(self):
        self.terminal.keys(f"{harness.IVMM} top", "Enter")
        self.expect("GUEST", "main", "trap", "SWITCH", "WATCH OF")

    def status(self, name):
        return json.loads(self.site.ivmm("status", name, "--json"))["state"]

    def test_keys(self):
        self.site.attack(5)
        self.start()
        self.expect("in-sync", ATTACKER, "q quit")
        self.terminal.keys("f")
        self.expect("freeze or thaw main? (y/n)")
        self.terminal.keys("n")
        self.expect("nothing was done")
        self.terminal.keys("Down", "f")
        self.expect("freeze or thaw trap? (y/n)")
        self.terminal.keys("y")
        self.expect("trap is frozen", "paused")
        self.assertEqual((self.status("main"), self.status("trap")), ("running", "paused"))
        self.terminal.keys("f", "y")
        self.expect("trap runs again")
        self.assertEqual(self.status("trap"), "running")
        self.terminal.keys("e", "y")
        self.expect("the evidence of trap")
        folders = list(self.site.workspace.path.glob("evidence-trap-*"))
        self.assertEqual([(folder / "report.html").exists() for folder in folders], [True])
        self.terminal.keys("u", "y")
        self.expect("1 diversions to trap have ended")
        self.assertNotIn(ATTACKER, self.site.ivmm("switch", "status", "lan"))
        self.terminal.keys("u", "y")
        self.expect("nothing goes to trap")
        self.terminal.keys("q")
        self.expect("ready>")
        self.assertNotIn("GUEST", self.terminal.screen())

    def test_the_terminal_is_as_before_however_it_ends(self):
        for way in ("C-c", signal.SIGTERM, signal.SIGHUP):
            self.start()
            if isinstance(way, str):
                self.terminal.keys(way)
            else:
                os.kill(self.terminal.child(), way)
            self.expect("ready>")
            self.terminal.keys("stty -a", "Enter")
            self.expect(" echo ", " icanon ")
            self.terminal.keys("clear", "Enter")

    def test_sizes(self):
        self.start()
        for columns, rows in ((40, 10), (1, 1), (10, 2), (200, 60)):
            self.terminal.resize(columns, rows)
            head = "ivmm top"[:columns]
            self.check(harness.eventually(
                lambda: self.terminal.screen().startswith(head), 20), columns, rows)
        self.expect("GUEST", "WATCH OF", "q quit")
        self.terminal.keys("q")
        self.expect("ready>")

    def test_what_comes_and_goes(self):
        self.start()
        self.site.fork("second")
        self.expect("second")
        self.site.ivmm("stop", "second")
        self.expect("ended")
        self.site.ivmm("rm", "second")
        self.check(harness.eventually(lambda: "second" not in self.terminal.screen(), 20), "second")
        self.terminal.keys("q")
        self.expect("ready>")

    def test_without_a_terminal(self):
        once = self.site.ivmm("top", "--once")
        for text in ("GUEST", "main", "trap", "SWITCH", "lan", "MOUNTED AT", "WATCH OF"):
            self.assertIn(text, once)
        self.assertNotIn("\x1b", once)
        state = json.loads(self.site.ivmm("top", "--json"))
        self.assertEqual({guest["name"] for guest in state["guests"]}, {"main", "trap"})
        self.assertEqual(state["overlays"][0]["mounts"][0]["mountpoint"], str(self.site.mnt))
        refused = self.site.workspace.ivmm("top")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("--once", refused.stderr)
        empty = harness.Workspace()
        self.addCleanup(empty.close)
        self.assertEqual(empty.ivmm("top", "--once").returncode, 0)


if __name__ == "__main__":
    harness.require_kvm()
    if not shutil.which("tmux"):
        raise SystemExit("tmux is missing")
    harness.enter_own_network()
    harness.main()
