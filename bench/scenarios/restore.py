"""A guest in files: saving it, and until it runs again."""

import os
import shlex
import shutil

from harness import dirty, memory
from harness.control import Qmp
from harness.figures import Figure
from harness.migration import Side, migrate
from harness.runner import Cell
from harness.targets import Qemu

NAME = "restore"
SUMMARY = "a 1 GiB guest that writes 100 MB/s is saved in files, and goes on from them"
REPEAT = 3
PEER = True
GUESTS = True

RESTORES = 5         # of each saved guest
REGION_MIB = 512     # that the guest fills, and writes to
RATE = 100           # MB/s
INTERVAL_MS = 5      # between two reports of the guest: so late its first words may come
TIMEOUT = 60
MIB = 1 << 20

FIGURES = [
    Figure("first_words", "start of the program to the guest's first words", "ms", "lower"),
    Figure("private", "memory of its own then, the guest's included", "MiB", "lower"),
    Figure("pause", "the guest stood still to be saved", "ms", "lower"),
    Figure("file", "size of the files", "MiB", "lower"),
]


def targets(context):
    return [context.ivmm] + ([Qemu(context.qemu.path, "threads", "qemu")] if context.qemu else [])


def plan(context, _):
    context.settings.update({"memory_mib": dirty.MEMORY_MIB, "region_mib": REGION_MIB, "rate_mbps": RATE,
                             "restores_a_round": RESTORES, "interval_ms": INTERVAL_MS})
    guest = dirty.guest(context, rate=RATE, region_mib=REGION_MIB, interval_ms=INTERVAL_MS)

    def measure(target):
        path = context.file("saved")
        save = _save_ivmm if target is context.ivmm else _save_qemu
        saved = save(context, path, guest)
        samples = {"pause": saved.pause_ms, "file": _allocated(path) / MIB, "first_words": [], "private": []}
        for _ in range(RESTORES):
            with context.start(saved, guest) as running:
                samples["first_words"].append(running.wait_for("generation=", TIMEOUT) / 1e6)
                samples["private"].append(saved.private_kib(running) / 1024)
        remove = shutil.rmtree if os.path.isdir(path) else os.unlink
        remove(path)
        return samples

    return [Cell("save and restore", FIGURES, measure)]


class _SavedInIvmm:
    def __init__(self, context, path, pause_ms):
        self._context = context
        self.path, self.pause_ms = path, pause_ms

    def command(self, _, name):
        return [self._context.ivmm.path, "restore", self.path, "--name", name]

    def private_kib(self, running):
        return memory.of_process(self._context.ivmm_status(running)["pid"], None)[0].private


class _SavedInQemu(Qemu):
    def __init__(self, program, path, pause_ms):
        super().__init__(program, "threads")
        self._file = path
        self.pause_ms = pause_ms

    def command(self, guest, name):
        return super().command(guest, name) + ["-incoming", f"exec:cat {shlex.quote(self._file)}"]

    def private_kib(self, running):
        # The guest's memory is nobody else's, although it is mapped shared.
        rest, guest, _ = memory.of_process(running.pid, self.guest_mapping)
        return rest.private + guest.rss


def _save_ivmm(context, path, guest):
    with context.start(context.ivmm, guest) as running:
        running.wait_for("generation=", dirty.START_TIMEOUT)
        with context.control(context.ivmm_name(running)) as control:
            report = control.call("snapshot", TIMEOUT, folder=path)
            control.stop_guest()
    return _SavedInIvmm(context, path, report["pause_us"] / 1000)


def _save_qemu(context, path, guest):
    side = Side(context.qemu.path, context.socket("qmp"))
    with context.start(side, guest) as running:
        running.wait_for("generation=", dirty.START_TIMEOUT)
        with Qmp(side.monitor) as monitor:
            said = migrate(monitor, f"exec:cat >{shlex.quote(path)}")
    return _SavedInQemu(context.qemu.path, path, said["downtime"])


def _allocated(path):
    """Bytes that a file, or those in a folder, take."""
    files = [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else [path]
    return sum(os.stat(file).st_blocks * 512 for file in files)
