"""The peer of a fork: QEMU moves a running guest to a second QEMU on the same host."""

import contextlib
import time

from .control import Qmp
from .errors import Failure
from .targets import Qemu

DOWNTIME_MS = 2      # what QEMU is told to aim at; twice as much for each time that
RELENT_SECONDS = 5   # have passed without the end
PATIENCE = 60
BYTES_A_SECOND = 100 << 30  # its own default would be 128 MiB/s
POLL_SECONDS = 0.02


class Side(Qemu):
    """A QEMU with a monitor, which may wait for a guest to come."""

    def __init__(self, path, monitor, incoming=None):
        super().__init__(path, "threads")
        self.monitor = monitor
        self.incoming = incoming

    def command(self, guest, name):
        argv = super().command(guest, name) + ["-qmp", f"unix:{self.monitor},server=on,wait=off"]
        return argv + (["-incoming", f"unix:{self.incoming}"] if self.incoming else [])


class Chain:
    """A guest that moves on, again and again, to one QEMU after another. Use as a context manager."""

    def __init__(self, context, path, guest):
        self._context = context
        self._path = path
        self._guest = guest
        self._stack = contextlib.ExitStack()
        self._sides = 0
        self.running = self._monitor = None

    def __enter__(self):
        try:
            self.running, self._monitor, _ = self._start(False)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_):
        self._stack.close()

    def move(self):
        """Returns what `query-migrate` says at the end, with the limit that it needed."""
        running, monitor, address = self._start(True)
        result = migrate(self._monitor, f"unix:{address}")
        self._monitor.call("quit")
        self.running.finish(PATIENCE)
        self.running, self._monitor = running, monitor
        return result

    def _start(self, incoming):
        self._sides += 1
        address = self._context.socket(f"move{self._sides}") if incoming else None
        side = Side(self._path, self._context.socket(f"qmp{self._sides}"), address)
        running = self._stack.enter_context(
            self._context.start(side, self._guest, f"stderr{self._sides % 2}"))
        return running, self._stack.enter_context(Qmp(side.monitor)), address


def migrate(monitor, uri):
    """Sends the guest there. Returns what `query-migrate` says at the end, with the limit that it needed."""
    limit = DOWNTIME_MS
    _set_limit(monitor, limit)
    monitor.call("migrate", uri=uri)
    started = relented = time.monotonic()
    while time.monotonic() - started < PATIENCE:
        said = monitor.call("query-migrate")
        if said.get("status") == "completed":
            return {**said, "limit": limit}
        if said.get("status") in ("failed", "cancelled"):
            raise Failure(f"the migration has {said['status']}: {said.get('error-desc', 'QEMU gives no reason')}")
        if time.monotonic() - relented > RELENT_SECONDS:
            relented, limit = time.monotonic(), 2 * limit
            _set_limit(monitor, limit)
        time.sleep(POLL_SECONDS)
    raise Failure(f"a migration did not end within {PATIENCE} s")


def _set_limit(monitor, limit):
    monitor.call("migrate-set-parameters", **{"downtime-limit": limit, "max-bandwidth": BYTES_A_SECOND})
