"""What a scenario is given to measure with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from . import mounts, process
from .control import Control
from .errors import Failure


class Context:
    """The programs and folders of one call of the harness. Use as a context manager: it cleans up."""

    def __init__(self, ivmm, guests, scratch_parent, progress, files=None):
        self.ivmm = ivmm      # targets.Ivmm
        self.guests = guests  # the folder of the test guests
        self.progress = progress
        self.files = files    # --files; None: the scenario's
        # Of the scenario under way:
        self.peers = False    # whether they are wanted
        self.qemu = None      # targets.QemuHost; None: no peer
        self.notes = []       # for the reader
        self.settings = {}    # what was chosen, for the JSON
        self._runs = 0
        # The sockets of ivmm need a short path, the disks a folder of the user's choice.
        self.scratch = tempfile.mkdtemp(prefix="ivmm-bench.", dir=scratch_parent)
        self._runtime = tempfile.mkdtemp(prefix="ivmm-bench-run.", dir="/tmp")
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=self._runtime)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # An impatient second Ctrl-C must not leave things behind.
        handlers = {number: signal.signal(number, signal.SIG_IGN)
                    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        process.end_all()
        left = mounts.detach_all(self.scratch)
        if left:  # nothing is removed through a mount
            print(f"ivmm-bench: cannot unmount {left[0]}; {self.scratch} is left", file=sys.stderr)
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.rmtree(self._runtime, ignore_errors=True)
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def guest(self, name):
        path = os.path.join(self.guests, f"{name}.elf")
        if not os.path.isfile(path):
            raise Failure(f"the test guest {path} is missing; build the test guests")
        return path

    def file(self, name):
        return os.path.join(self.scratch, name)

    def start(self, target, guest, stderr="stderr"):
        """Starts a guest; the result is a context manager that ends it, and everything else that was started."""
        self._runs += 1
        return process.Process(target.command(guest, f"bench{self._runs}"), self.environment,
                               self.file(stderr))

    def ivmm_name(self, running):
        """The name of a guest of ivmm's that was started with start()."""
        return running.argv[running.argv.index("--name") + 1]

    def socket(self, name):
        """A path for a socket, which must be short, where nothing is yet."""
        self._runs += 1
        return os.path.join(self._runtime, f"{name}.{self._runs}")

    def control(self, name):
        """The control socket of a guest of ivmm's, or of a clone; a context manager."""
        return Control(os.path.join(self._runtime, "ivmm", f"{name}.sock"))

    def ivmm_call(self, *words, timeout=60):
        """Runs a command of ivmm's that is not measured."""
        try:
            done = subprocess.run([self.ivmm.path, *words], env=self.environment, capture_output=True, text=True,
                                  timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"ivmm {' '.join(words)} did not end within {timeout} s") from error
        if done.returncode != 0:
            raise Failure(f"ivmm {' '.join(words)} has failed: {done.stderr.strip()}")

    def ivmm_status(self, running):
        """What `ivmm status` says of a guest that was started with start()."""
        name = self.ivmm_name(running)
        done = subprocess.run([self.ivmm.path, "status", name, "--json"], env=self.environment,
                              capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise Failure(f"ivmm status {name} --json has failed: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def run_test_guest(self, target, guest, timeout):
        """Runs a test guest to its end. Returns its lines as dicts of their words, and the CPU seconds."""
        with self.start(target, guest) as running:
            running.finish(timeout)
            text = running.text()
            if "FAILED" in text or ": done" not in text or not target.ended_well(running.exit_code):
                running.fail(f"ran a guest that did not do its work (code {running.exit_code})")
            return parse_lines(text), running.cpu_seconds


def parse_lines(text):
    """The words KEY=VALUE of each line "guest NAME: …"; whole numbers and decimals become numbers."""
    lines = []
    for line in text.splitlines():
        _, begins, rest = line.partition("guest ")
        if not begins:
            continue
        words = {}
        for word in rest.split():
            key, equals, value = word.partition("=")
            if not equals:
                continue
            try:
                words[key] = float(value) if "." in value else int(value, 0)
            except ValueError:
                words[key] = value
        if words:
            lines.append(words)
    return lines
