#!/usr/bin/env python3
"""Tests of the harness itself; they need neither KVM nor QEMU."""

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
import unittest.mock
import xml.dom.minidom

sys.dont_write_bytecode = True

# pylint: disable=wrong-import-position
import scenarios
from harness import bars, dirty, figures, fio, host, memory, mounts, plot, process, runner
from harness.context import Context, parse_lines
from harness.control import Control, JsonLines, Qmp
from harness.errors import Failure, Unusable
from harness.figures import Figure
from harness.targets import Guest, Ivmm, Qemu

HERE = os.path.dirname(os.path.abspath(__file__))

SMAPS = """\
5555-6666 r-xp 00000000 fe:00 1   /usr/bin/ivmm
Rss:                 100 kB
Pss:                  40 kB
Private_Clean:         3 kB
Private_Dirty:         4 kB
Locked:                9 kB
7000-8000 rw-s 00000000 00:01 2   /memfd:ivmm-guest (deleted)
Rss:               70000 kB
Pss:               60000 kB
9000-a000 rw-p 00000000 00:00 0
Rss:                  20 kB
Pss:                  20 kB
Private_Dirty:        20 kB
"""


def scenario_result(own, peer=None, key="rss"):
    samples = {"ivmm": own} if peer is None else {"ivmm": own, "qemu": peer}
    return {"name": "start", "figures": [figures.as_json(Figure(key, "T", "MiB", "lower"), samples)]}


class Figures(unittest.TestCase):
    def test_ratio_is_that_of_the_medians(self):
        figure = figures.as_json(Figure("k", "T", "ms", "lower"), {"ivmm": [1, 2, 90], "qemu": [4, 4, 5]})
        self.assertEqual(figure["summary"]["ivmm"], {"min": 1, "median": 2, "p99": 90, "max": 90})
        self.assertEqual(figure["ratio"], {"qemu": 0.5})

    def test_verdict_follows_the_direction_and_the_ranges(self):
        def verdict(better, own, peer):
            return figures.verdict(figures.as_json(Figure("k", "T", "", better), {"ivmm": own, "qemu": peer}), "qemu")
        self.assertEqual(verdict("lower", [1, 2], [3, 4]), "0.43 × (better)")
        self.assertEqual(verdict("higher", [1, 2], [3, 4]), "0.43 × (worse)")
        self.assertEqual(verdict("lower", [1, 3], [2, 4]), "0.67 × (ranges overlap)")

    def test_percentiles(self):
        self.assertEqual(figures.percentile(range(1, 101), 99), 99)
        self.assertEqual(figures.percentile([3, 1, 2], 99), 3)
        self.assertEqual(figures.percentile([3, 1, 2], 0), 1)

    def test_a_percentile_is_shown_when_there_are_samples_enough(self):
        def table(count):
            return figures.table([figures.as_json(Figure("k", "T", "ms", "lower"), {"ivmm": [1] * count})])
        self.assertNotIn("p99", table(figures.MANY - 1)[0])
        self.assertIn("p99", table(figures.MANY)[0])
        self.assertEqual(table(figures.MANY)[1].split(), ["T", "[ms]", "ivmm"] + ["1.00"] * 4)


class Bars(unittest.TestCase):
    def judge(self, bar, result, kind="kvm_pvm"):
        return bars.judge([{"scenario": "start", "figure": "rss", **bar}], result, kind)[1]

    def test_limits(self):
        self.assertEqual(self.judge({"at_most": 8}, scenario_result([8])), 0)
        self.assertEqual(self.judge({"at_most": 8}, scenario_result([8.1])), 1)
        self.assertEqual(self.judge({"at_least": 8}, scenario_result([7.9])), 1)
        self.assertEqual(self.judge({"ratio_at_most": 0.5}, scenario_result([5], [10])), 0)
        self.assertEqual(self.judge({"ratio_at_most": 0.5}, scenario_result([6], [10])), 1)

    def test_a_percentile(self):
        result = scenario_result([1] * 98 + [7, 9])
        self.assertEqual(self.judge({"at_most": 1}, result), 0)
        self.assertEqual(self.judge({"at_most": 6.9, "of": "p99"}, result), 1)
        self.assertEqual(self.judge({"at_most": 7, "of": "p99"}, result), 0)

    def test_what_was_not_measured_is_missed_but_a_missing_peer_is_not(self):
        self.assertEqual(self.judge({"at_most": 8}, scenario_result([1], key="other")), 1)
        self.assertEqual(self.judge({"ratio_at_most": 0.5}, scenario_result([6])), 0)

    def test_only_beside_the_peer_it_names(self):
        self.assertEqual(self.judge({"ratio_at_most": 0.5, "peer": "qemu"}, scenario_result([6], [10])), 1)
        self.assertEqual(self.judge({"ratio_at_most": 0.5, "peer": "other"}, scenario_result([6], [10])), 0)

    def test_only_on_the_hosts_it_names(self):
        self.assertEqual(self.judge({"at_most": 8, "hosts": ["kvm_intel"]}, scenario_result([9])), 0)
        self.assertEqual(self.judge({"at_most": 8, "hosts": ["kvm_pvm"]}, scenario_result([9])), 1)

    def test_the_file_names_scenarios_and_figures_that_exist(self):
        for bar in bars.load(os.path.join(HERE, "bars.toml")):
            scenario = scenarios.ALL[bar["scenario"]]
            self.assertIn(bar["figure"], [figure.key for figure in scenario.FIGURES])
            self.assertTrue(set(bar.get("hosts", [])) <= set(host.KINDS))

    def test_a_bad_bar_is_refused(self):
        for limit in ('at_mots = 8', 'at_most = 8\nof = "mode"', 'ratio_at_most = 8\nof = "p99"'):
            with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
                file.write(f'[[bar]]\nscenario = "start"\nfigure = "rss"\n{limit}\n')
                file.flush()
                self.assertRaises(Unusable, bars.load, file.name)


class Parsing(unittest.TestCase):
    def test_guest_lines(self):
        text = "!guest blk: op=read n=10 mbps=1.500 features=0x10\nnoise a=1\nguest blk: done\n"
        self.assertEqual(parse_lines(text), [{"op": "read", "n": 10, "mbps": 1.5, "features": 16}])

    def test_reports_of_the_guest_that_dirties_memory(self):
        text = "guest dirty: start=1 rate=5\n" + "".join(
            f"guest dirty: generation=0 pages=8 mbps=1.5 write_us=4 gap_us_max={gap} errors=0\n" for gap in (7, 9, 8))
        self.assertEqual([report["gap_us_max"] for report in dirty.reports(text)], [7, 9, 8])
        self.assertEqual(dirty.longest_gap(text), 9)
        writing = scenarios.sync.Writing(dirty.reports(text))
        self.assertEqual((writing.pages, writing.us_a_page, writing.speed), (24, 0.5, 1.5))

    def test_smaps_without_the_memory_of_the_guest(self):
        rest, guest, mapped = memory.split_smaps(SMAPS.splitlines(), Ivmm.guest_mapping)
        self.assertTrue(mapped)
        self.assertEqual((rest.rss, rest.pss, rest.private), (120, 60, 27))
        self.assertEqual((guest.rss, guest.pss), (70000, 60000))
        self.assertFalse(memory.split_smaps(SMAPS.splitlines(), Qemu.guest_mapping)[2])
        self.assertEqual(memory.split_smaps(SMAPS.splitlines(), None)[0].rss, 70120)

    def test_fio(self):
        def said(error=0):
            return "note: x\n" + json.dumps({"jobs": [{"error": error, "read": {"total_ios": 0},
                                                       "write": {"total_ios": 5, "iops": 7.5, "bw_bytes": 30720}}]})
        self.assertEqual(fio.parse(0, said(), "", ["fio"]), (7.5, 30720))
        for code, text in ((1, said()), (0, said(error=5)), (0, "no JSON"), (0, '{"jobs": []}')):
            self.assertRaises(Failure, fio.parse, code, text, "reason", ["fio"])

    def test_mount_points_are_found_below_a_folder_only(self):
        self.assertIn("/proc", mounts.below("/"))
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(mounts.below(folder), [])
            self.assertFalse(mounts.is_mounted(folder))
            self.assertEqual(mounts.detach_all(folder), [])


class Processes(unittest.TestCase):
    """With a shell script in the place of ivmm."""

    @classmethod
    def setUpClass(cls):
        process.become_reaper()

    def start(self, context, script):
        path = context.file("ivmm")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{script}\n")
        os.chmod(path, 0o700)
        return context.start(Ivmm(path), Guest("kernel"))

    def context(self):
        return Context(None, None, None, lambda text: None)

    def test_output_exit_code_and_cpu_time_of_all(self):
        with self.context() as context:
            with self.start(context, "echo hello; (i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done) & exit 3") as run:
                self.assertGreater(run.wait_for("hello", 10), 0)
                run.finish(10)
                self.assertEqual((run.exit_code, run.text()), (3, "hello\n"))
                self.assertGreater(run.cpu_seconds, 0.01)

    def test_a_program_that_ends_or_hangs_is_a_failure_and_is_quoted(self):
        with self.context() as context:
            with self.start(context, "echo sorry >&2; exit 1") as run:
                self.assertRaisesRegex(Failure, "code 1.*sorry", run.wait_for, "!", 10)
            with self.start(context, "sleep 100") as run:
                self.assertRaisesRegex(Failure, "did not print", run.wait_for, "!", 0.1)
                self.assertRaisesRegex(Failure, "did not end", run.finish, 0.1)

    def test_lines_are_taken_when_they_are_complete(self):
        with self.context() as context:
            with self.start(context, "echo one; printf tw; sleep 0.3; echo o; sleep 100") as run:
                run.wait_for("tw", 10)
                self.assertEqual(run.take_lines(), "one\n")
                self.assertEqual(run.take_lines(), "")
                run.wait_for("\n", 10)
                self.assertEqual(run.take_lines(), "two\n")
            with self.start(context, "exit 3") as run:
                self.assertRaisesRegex(Failure, "code 3 while", run.read_for, 10)

    def test_nothing_is_left_behind(self):
        with self.context() as context:
            with self.start(context, "(setsid sleep 100 &) ; sleep 100") as run:
                deadline = time.monotonic() + 10
                while len(process.descendants(os.getpid())) < 3 and time.monotonic() < deadline:
                    time.sleep(0.01)
            self.assertEqual(process.descendants(os.getpid()), [])
            scratch = context.scratch
            self.assertTrue(os.path.exists(scratch))
            self.assertEqual(run.exit_code, None)
        self.assertFalse(os.path.exists(scratch))


class Sockets(unittest.TestCase):
    """With a server that says what it was told to, one line for each that it gets."""

    def serve(self, answers, greeting=b""):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "socket")
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(path)
        server.listen()

        def talk():
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as lines:
                connection.sendall(greeting)
                for answer in answers:
                    lines.readline()
                    connection.sendall(answer)

        thread = threading.Thread(target=talk)
        thread.start()
        self.addCleanup(thread.join, 10)
        return path

    def test_answers_are_told_from_events(self):
        event = b'{"jsonrpc":"2.0","method":"guest.paused","params":{}}\n'
        path = self.serve([event + b'{"id":1,"result":{"a":', b'5}}\n', b'{"id":2,"error":{"message":"no"}}\n'])
        with Control(path) as control:
            control.send({})  # for the second half of the answer
            self.assertEqual(control.call("status"), {"a": 5})
            self.assertRaisesRegex(Failure, "fork: no", control.call, "fork")
            self.assertRaises(Failure, control.call, "fork")

    def test_the_console_is_read_until_the_text_is_there(self):
        def output(text):
            data = base64.b64encode(text).decode()
            return f'{{"method":"console.output","params":{{"data":"{data}"}}}}\n'.encode()
        with Control(self.serve([b'{"id":1,"result":{}}\n' + output(b"gener") + output(b"ation=1")])) as control:
            control.wait_for_console("generation=", 10)
            self.assertRaises(Failure, control.wait_for_console, "more", 10)

    def test_the_monitor_of_qemu(self):
        path = self.serve([b'{"return":{}}\n', b'{"event":"STOP"}\n{"return":{"status":"active"}}\n'],
                          b'{"QMP":{}}\n')
        with Qmp(path) as monitor:
            self.assertEqual(monitor.call("query-migrate"), {"status": "active"})

    def test_one_that_is_silent_or_not_there_is_a_failure(self):
        with Control(self.serve([b""])) as control:
            self.assertRaises(Failure, control.call, "status", 0.05)
        self.assertRaises(Failure, JsonLines, "/nonexistent/socket", 0.05)


class Runner(unittest.TestCase):
    class Scenario:
        NAME = "fake"
        GUESTS = True

        def __init__(self, labels, measure, once):
            self.labels, self.measure, self.once = labels, measure, once
            self.order = []

        def targets(self, context):
            return [context.ivmm] + [Qemu("qemu", "threads", label) for label in self.labels]

        def plan(self, *_):
            def measure(target):
                self.order.append(target.label)
                return {"k": self.measure(target)}
            return [runner.Cell("c", [Figure("k", "T", "ms", "lower")], measure, self.once)]

    def run_scenario(self, labels, measure, repeat=2, once=False):
        with Context(Ivmm("ivmm"), None, None, lambda text: None) as context:
            scenario = self.Scenario(labels, measure, once)
            return runner.run(scenario, context, None, repeat), scenario.order

    def test_targets_take_turns(self):
        result, order = self.run_scenario(["a", "b"], lambda target: 1.0)
        self.assertEqual(order, ["ivmm", "a", "b"] * 2)
        self.assertEqual(result["figures"][0]["samples"], {"ivmm": [1, 1], "a": [1, 1], "b": [1, 1]})

    def test_what_is_measured_once_is_not_repeated(self):
        _, order = self.run_scenario(["a"], lambda target: 1.0, once=True)
        self.assertEqual(order, ["ivmm", "a"])

    def test_several_samples_at_once(self):
        result, _ = self.run_scenario(["a"], lambda target: [1.0, 2.0])
        self.assertEqual(result["figures"][0]["samples"], {"ivmm": [1, 2, 1, 2], "a": [1, 2, 1, 2]})

    def test_a_peer_that_fails_is_left_out(self):
        def measure(target):
            if target.label == "a":
                raise Failure("no")
            return 1.0
        result, order = self.run_scenario(["a"], measure)
        self.assertEqual(order, ["ivmm", "a", "ivmm"])
        self.assertNotIn("error", result)
        self.assertIn("a is left out", result["notes"][0])

    def test_ivmm_that_fails_is_an_error(self):
        def measure(target):
            raise Failure("broken")
        result, _ = self.run_scenario(["a"], measure)
        self.assertEqual((result["error"], result["figures"]), ("broken", []))


class Switches(unittest.TestCase):
    def test_a_peer_that_is_not_installed_is_left_out_with_the_reason(self):
        context = types.SimpleNamespace(ivmm=Ivmm("/bin/true"), peers=True, notes=[])
        with unittest.mock.patch("shutil.which", lambda program: None if "vde" in program else program):
            found = scenarios.switch.targets(context)
        self.assertEqual([target.label for target in found], ["ivmm", "bridge and veth", "Open vSwitch"])
        self.assertEqual(len(context.notes), 1)
        self.assertIn("VDE2 is left out: vde_switch is not installed", context.notes[0])


class Plot(unittest.TestCase):
    def test_it_is_xml_and_shows_every_label(self):
        report = {"started": "2020-01-01T00:00:00+00:00",
                  "host": {"kind": "kvm_pvm", "cpus": 2, "kernel": "6", "qemu": None},
                  "scenarios": [scenario_result([1, 2, 3], [0, 0, 0])]}
        picture = plot.draw([("<one>", report), ("two", report)])
        texts = [node.firstChild.data for node in xml.dom.minidom.parseString(picture).getElementsByTagName("text")]
        for label in ("ivmm · <one>", "qemu · <one>", "ivmm · two", "qemu · two", "start"):
            self.assertIn(label, texts)


class CommandLine(unittest.TestCase):
    def call(self, *words):
        done = subprocess.run([os.path.join(HERE, "ivmm-bench"), *words], capture_output=True, text=True,
                              timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    def test_help_and_list(self):
        code, text = self.call("--help")
        self.assertEqual(code, 0)
        self.assertIn("examples:", text)
        code, text = self.call("list")
        self.assertEqual(code, 0)
        for name in scenarios.ALL:
            self.assertIn(name, text)

    def test_bad_usage(self):
        for words in ([], ["run"], ["run", "nothing"], ["run", "start", "--repeat", "0"], ["plot", "-o", "x"],
                      ["plot", "/dev/null", "-o", "x.svg"], ["run", "start", "--ivmm", "/nonexistent"]):
            self.assertEqual(self.call(*words)[0], 2, words)


if __name__ == "__main__":
    unittest.main()
