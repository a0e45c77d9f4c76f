"""What tests of forks have in common: a guest, forks of it, its clones."""

import json
import re
import socket
import unittest

import harness


class Clone(harness.Program):
    """The console of a clone, from its start on."""

    def __init__(self, workspace, report):
        self.report = report
        self.name = report["clone"]
        super().__init__([harness.IVMM, "console", self.name], workspace.environment)
        self.workspace = workspace

    def end(self):
        self.workspace.ivmm("stop", self.name)
        self.wait_end()


def standby_status(workspace, guest="main"):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(workspace.path / "ivmm" / f"{guest}.sock"))
        client.sendall(b'{"jsonrpc":"2.0","id":1,"method":"standby.status"}\n')
        return json.loads(client.makefile().readline())["result"]


class SelfCheckingCase(unittest.TestCase):
    """With guests that look after their own memory."""

    def assert_passes(self, console, passes=2, since=0):
        """The guest goes over its memory so many times more, and finds it as it should be."""
        first = []

        def enough():
            reports = re.findall(r"generation=(\d+) .* errors=(\d+)", console.console[since:])
            if reports:
                self.assertEqual({errors for _, errors in reports}, {"0"}, console.console)
                first.append(int(reports[0][0]))
                return int(reports[-1][0]) >= first[0] + passes
            return False

        self.assertTrue(harness.eventually(enough), console.console + console.log)


class ForkCase(SelfCheckingCase):
    def setUp(self):
        self.workspace = harness.Workspace()
        self.addCleanup(self.workspace.close)

    def start(self, guest, *arguments, cmdline=""):
        running = harness.Guest(
            self.workspace, "main", "--no-acpi", "--kernel", harness.GUESTS / f"{guest}.elf",
            *arguments, "--cmdline", cmdline,
        )
        self.addCleanup(running.close)
        return running

    def fork(self, *arguments, name="main"):
        done = self.workspace.ivmm("fork", name, "--json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        print(
            f"{report['clone']}: pause {report['pause_us']:.0f} µs"
            f" ({report['residual_pages']} pages {report['residual_copy_us']:.0f},"
            f" state {report['state_us']:.0f}, disks {report['disk_fork_us']:.0f}),"
            f" runs after {report['trigger_to_run_us'] / 1000:.1f} ms,"
            f" private {report['clone_private_bytes'] >> 10} KiB",
            flush=True,
        )
        return report

    def in_sync(self):
        done = self.workspace.ivmm("standby", "main")
        self.assertEqual(done.returncode, 0, done.stderr)

    def clone(self, *arguments):
        console = Clone(self.workspace, self.fork(*arguments))
        self.addCleanup(console.close)
        return console

    def assert_no_leftovers(self):
        self.assertEqual(self.workspace.leftovers(), [])

    def assert_nothing_but_logs(self):
        left = [name for name in self.workspace.leftovers() if not name.endswith(".log")]
        self.assertEqual(left, [])

    def standby(self):
        return standby_status(self.workspace)

    def in_sync_again(self, pid):
        """Until there is another standby than that process."""
        self.assertTrue(harness.eventually(
            lambda: self.standby()["phase"] == "in-sync" and self.standby()["pid"] != pid))
