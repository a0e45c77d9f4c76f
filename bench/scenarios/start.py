"""How fast and how small: a VMM with 1 vCPU and 128 MiB."""

import os
import time

from harness import memory, process
from harness.errors import Failure
from harness.figures import Figure
from harness.runner import Cell
from harness.targets import Guest, Qemu

NAME = "start"
SUMMARY = "process start to the first guest instruction; memory beyond the guest's own"
REPEAT = 20
PEER = True
GUESTS = True

TIMEOUT = 30
SETTLE = 0.5  # seconds that a guest runs before its VMM's memory is read

TIME = [
    Figure("first_instruction", "start to first instruction", "ms", "lower"),
    Figure("whole_run", "start to end of the process", "ms", "lower"),
]
MEMORY = [
    Figure("rss", "memory beyond the guest's: Rss", "MiB", "lower"),
    Figure("pss", "memory beyond the guest's: Pss", "MiB", "lower"),
    Figure("private", "memory beyond the guest's: private", "MiB", "lower"),
    Figure("pss_all", "Pss with the console client", "MiB", "lower"),
    Figure("guest_rss", "the guest's own memory: Rss", "MiB", "lower"),
]
FIGURES = TIME + MEMORY


def targets(context):
    qemu = context.qemu
    return [context.ivmm] + ([Qemu(qemu.path, "threads")] if qemu else [])


def plan(context, targets_):
    def measure_time(target):
        with context.start(target, Guest(context.guest("first"))) as running:
            first = running.wait_for("!", TIMEOUT)
            return {"first_instruction": first / 1e6, "whole_run": running.finish(TIMEOUT) / 1e6}

    def measure_memory(target):
        # It spins in user mode, and ends by itself should nobody end it.
        guest = Guest(context.guest("hello"), "spin=1 interval_ms=60000 seconds=60")
        with context.start(target, guest) as running:
            running.wait_for("tsc_khz", TIMEOUT)
            time.sleep(SETTLE)
            vmm, own, everything = memory.processes_with(process.descendants(os.getpid()),
                                                         target.guest_mapping)
            if vmm is None:
                raise Failure(f"no process of {target.label} maps {target.guest_mapping}")
            mib = 1024
            return {"rss": vmm.rss / mib, "pss": vmm.pss / mib, "private": vmm.private / mib,
                    "pss_all": everything.pss / mib, "guest_rss": own.rss / mib}

    context.settings.update({"cpus": 1, "memory_mib": 128})
    for target in list(targets_):  # programs and libraries come into the page cache
        try:
            measure_time(target)
        except Failure:
            pass  # it is reported where it is measured
    return [Cell("time", TIME, measure_time), Cell("memory", MEMORY, measure_memory)]
