"""Runs the programs that are measured: bounded in time, and with nothing left behind.

The harness makes itself the reaper of all its descendants, so that a process that its parent has
left is still found, counted and ended. All of them are its own: no other process is ever touched.
"""

import ctypes
import os
import select
import signal
import time

from .errors import Failure

PR_SET_CHILD_SUBREAPER = 36
CHUNK = 65536
SHOWN_OUTPUT = 600  # characters of a failed program's output that a message quotes


def become_reaper():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def descendants(ancestor):
    """The pids of all processes below `ancestor`, zombies too."""
    children = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has just ended
        children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [ancestor]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def end_all(patience=10.0):
    """Ends every process that this one started, and those that they started."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


class Process:
    """A program whose output is read; one at a time."""

    def __init__(self, argv, environment, stderr_path):
        self.argv = argv
        self.output = b""
        self.exit_code = None
        self.cpu_seconds = None  # of the program and all that it started, when it has ended
        self._stderr_path = stderr_path
        # Its standard input stays open and silent: an end of file could be a command.
        stdin_read, self._stdin = os.pipe()
        self._stdout, stdout_write = os.pipe()
        stderr = os.open(stderr_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # A session of its own: Ctrl-C reaches the harness only, which ends it in order.
            # A spawn and not a fork: the size of this process must not be in the measured time.
            self.started_ns = time.monotonic_ns()
            self.pid = os.posix_spawn(
                argv[0], argv, environment, setsid=True, setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
                file_actions=[(os.POSIX_SPAWN_DUP2, stdin_read, 0),
                              (os.POSIX_SPAWN_DUP2, stdout_write, 1),
                              (os.POSIX_SPAWN_DUP2, stderr, 2)])
        finally:
            for fd in (stdin_read, stdout_write, stderr):
                os.close(fd)
        self._pidfd = os.pidfd_open(self.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end_all()
        for fd in (self._stdin, self._stdout, self._pidfd):
            os.close(fd)

    def wait_for(self, text, timeout):
        """Reads until `text` has been printed. Returns the ns since the start of the program."""
        deadline = time.monotonic() + timeout
        wanted = text.encode()
        while True:
            ended = self._read(deadline)
            now = time.monotonic_ns()
            if wanted in self.output:
                return now - self.started_ns
            if ended:
                self._reap()
                self.fail(f"ended with code {self.exit_code} before it printed {text!r}")
            if time.monotonic() >= deadline:
                self.fail(f"did not print {text!r} within {timeout:g} s")

    def take_lines(self):
        """Reads what has been printed until now. Returns the complete lines, which are then forgotten."""
        while select.select([self._stdout], [], [], 0)[0]:
            data = os.read(self._stdout, CHUNK)
            if not data:
                break
            self.output += data
        lines, end, self.output = self.output.rpartition(b"\n")
        return (lines + end).decode(errors="replace").replace("\r", "")

    def read_for(self, seconds):
        """Reads on for so long; the program must not end meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._read(deadline):
                self._reap()
                self.fail(f"ended with code {self.exit_code} while it was measured")

    def finish(self, timeout):
        """Reads until the program has ended. Returns the ns that it lived."""
        deadline = time.monotonic() + timeout
        while not self._read(deadline):
            if time.monotonic() >= deadline:
                self.fail(f"did not end within {timeout:g} s")
        took = time.monotonic_ns() - self.started_ns
        self._reap()
        return took

    def text(self):
        return self.output.decode(errors="replace").replace("\r", "")

    def fail(self, what):
        with open(self._stderr_path, encoding="utf-8", errors="replace") as file:
            said = (self.text() + file.read()).strip()
        if len(said) > SHOWN_OUTPUT:
            said = "…" + said[-SHOWN_OUTPUT:]
        raise Failure(f"{os.path.basename(self.argv[0])} {what}; it said: {said or '(nothing)'}\n"
                      f"  command: {' '.join(self.argv)}")

    def _read(self, deadline):
        """Takes what there is, waiting for it if need be. Returns whether the program has ended."""
        left = max(deadline - time.monotonic(), 0)
        ready = select.select([self._stdout, self._pidfd], [], [], left)[0]
        if self._stdout in ready:
            data = os.read(self._stdout, CHUNK)
            self.output += data
            if data:
                return False
            # Nobody writes any more, yet the program may still be on its way out.
            ready = select.select([self._pidfd], [], [], max(deadline - time.monotonic(), 0))[0]
        return self._pidfd in ready

    def _reap(self):
        """Takes the exit code, and the CPU time with that of processes that were left behind."""
        _, status, usage = os.wait4(self.pid, 0)
        self.exit_code = os.waitstatus_to_exitcode(status)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                pid, _, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                time.sleep(0.001)
                continue
            self.cpu_seconds += usage.ru_utime + usage.ru_stime
