"""The disk: a raw file behind virtio-blk, in the page cache for all."""

import os
import shutil
import statistics

from harness.errors import Failure
from harness.figures import Figure
from harness.runner import Cell
from harness.targets import Guest, Qemu

NAME = "blk"
SUMMARY = "virtio-blk on a raw file: random 4 KiB, sequential 128 KiB, and what was written is read back"
REPEAT = 5
PEER = True
GUESTS = True

TIMEOUT = 120
MIB = 1 << 20
DISK_BYTES = 256 * MIB
SECONDS = 1             # that one run of the guest does I/O
VERIFY_BLOCKS = 16384   # of 4 KiB
VERIFY_QD = 16
EXCHANGED_BLOCKS = 2048

# (op, bytes of a request, requests under way)
WORKLOADS = [
    ("randread", 4096, 1),
    ("randread", 4096, 16),
    ("randwrite", 4096, 1),
    ("randwrite", 4096, 16),
    ("read", 131072, 4),
    ("write", 131072, 4),
]
NAMES = {"randread": "random read", "randwrite": "random write",
         "read": "sequential read", "write": "sequential write"}
VERIFY = [
    Figure("fill", "write a pattern 4 KiB, qd 16", "IOPS", "higher"),
    Figure("check", "read it back and compare", "IOPS", "higher"),
]


def figures_of(op, size, depth):
    """The rate, the latency and the cost of a workload."""
    key = f"{op}_{size // 1024}k_qd{depth}"
    title = f"{NAMES[op]} {size // 1024} KiB, qd {depth}"
    return [Figure(key, title, "MiB/s" if size > 4096 else "IOPS", "higher"),
            Figure(f"{key}_p99", f"{title}: p99", "µs", "lower"),
            Figure(f"{key}_cpu", f"{title}: CPU a request", "µs", "lower")]


FIGURES = [figure for workload in WORKLOADS for figure in figures_of(*workload)] + VERIFY


def targets(context):
    """ivmm, and QEMU once for each way it has here to do asynchronous I/O."""
    found = [context.ivmm]
    if context.qemu:
        probe = context.file("probe")
        with open(probe, "wb") as file:
            file.truncate(MIB)
        found += [Qemu(context.qemu.path, aio, f"qemu {aio}") for aio in context.qemu.probe_aio(probe)]
        if len(found) == 1:
            context.notes.append("QEMU can open no raw file here; it is left out")
    return found


def plan(context, targets_):
    disk = context.file("disk")
    make_disk(context, disk)
    context.settings.update({"disk_bytes": DISK_BYTES, "seconds": SECONDS,
                             "qemu_aio": context.qemu.aio if context.qemu else []})

    def run(target, cmdline):
        flush(disk)  # no run pays for what the one before it has written
        return context.run_test_guest(target, Guest(context.guest("blk"), cmdline, disk=disk), TIMEOUT)

    idle_cpu = cpu_without_io(run, targets_, context)
    check_each_others_data(run, targets_, context)
    cells = [workload_cell(run, idle_cpu, *workload) for workload in WORKLOADS]
    return cells + [verify_cell(run)]


def workload_cell(run, idle_cpu, op, size, depth):
    figures = figures_of(op, size, depth)
    rate, latency, cpu = figures

    def measure(target):
        lines, cpu_seconds = run(target, f"op={op} bs={size} qd={depth} seconds={SECONDS}")
        line = next((line for line in lines if line.get("op") == op), None)
        if line is None or not line["n"]:
            raise Failure(f"{target.label}: the guest did no {op}")
        per_second = line["n"] * 1e6 / line["us"]
        return {rate.key: per_second * size / MIB if rate.unit == "MiB/s" else per_second,
                latency.key: line["p99_us"],
                cpu.key: max(cpu_seconds - idle_cpu[target.label], 0) * 1e6 / line["n"]}

    return Cell(rate.title, figures, measure)


def verify_cell(run):
    keys = [figure.key for figure in VERIFY]

    def measure(target):
        lines, _ = run(target, f"op=verify n={VERIFY_BLOCKS} qd={VERIFY_QD}")
        return {line["op"]: line["n"] * 1e6 / line["us"] for line in lines if line.get("op") in keys}

    return Cell("verify", VERIFY, measure)


def cpu_without_io(run, targets_, context):
    """The CPU seconds of a run that only looks at the disk: what starting and ending costs."""
    seconds = {}
    for target in list(targets_):
        try:
            seconds[target.label] = statistics.median(run(target, "op=info")[1] for _ in range(3))
        except Failure as failure:
            if target is context.ivmm:
                raise
            context.notes.append(f"{target.label} is left out: {failure}")
            targets_.remove(target)
    return seconds


def check_each_others_data(run, targets_, context):
    """What one has written, the other must read."""
    for seed, peer in enumerate(target for target in targets_ if target is not context.ivmm):
        for writer, reader, pattern in ((context.ivmm, peer, 2 * seed + 1), (peer, context.ivmm, 2 * seed + 2)):
            run(writer, f"op=fill n={EXCHANGED_BLOCKS} qd=16 seed={pattern}")
            run(reader, f"op=check n={EXCHANGED_BLOCKS} qd=16 seed={pattern}")
        context.notes.append(f"ivmm and {peer.label} read what the other has written")


def make_disk(context, path):
    """Written out in full: no block of it is a hole, and all of it is in the page cache."""
    free = shutil.disk_usage(context.scratch).free
    if free < 2 * DISK_BYTES:
        raise Failure(f"{context.scratch} has {free // MIB} MiB free and {2 * DISK_BYTES // MIB} are needed; "
                      "name another folder with --dir DIR")
    block = os.urandom(MIB)
    with open(path, "wb") as file:
        for _ in range(DISK_BYTES // MIB):
            file.write(block)
    flush(path)


def flush(path):
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
