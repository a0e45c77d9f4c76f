"""What an exit to the VMM and back costs."""

from harness.figures import Figure
from harness.runner import Cell
from harness.targets import Guest, Qemu

NAME = "exits"
SUMMARY = "port and MMIO accesses that leave the guest, from ring 3 and ring 0"
REPEAT = 5
PEER = True
GUESTS = True

TIMEOUT = 120
TRIAL = 500          # accesses of each kind in the run that finds out how many are worth while
RUN_SECONDS = 1.5    # that one run of the guest is to take, over all kinds
MOST = 1_000_000
DISK_BYTES = 1 << 20

KINDS = {
    "out": "OUT, ring 3",
    "in": "IN, ring 3",
    "mmio_read": "MMIO read, ring 3",
    "mmio_write": "MMIO write, ring 3",
    "out_ring0": "OUT, ring 0",
    "mmio_read_ring0": "MMIO read, ring 0",
    "apic": "local APIC (never leaves the kernel)",
    "trap": "ring 3 to 0 and back (no exit)",
}
FIGURES = [Figure(key, title, "ns", "lower") for key, title in KINDS.items()]


def targets(context):
    qemu = context.qemu
    return [context.ivmm] + ([Qemu(qemu.path, "threads")] if qemu else [])


def plan(context, _):
    disk = context.file("disk")  # its registers are what MMIO reads and writes
    with open(disk, "wb") as file:
        file.truncate(DISK_BYTES)

    def run(target, n):
        guest = Guest(context.guest("exits"), f"n={n}", disk=disk)
        lines, _ = context.run_test_guest(target, guest, TIMEOUT)
        return [line for line in lines if line.get("kind") in KINDS]

    trial_us = sum(line["total_us"] for line in run(context.ivmm, TRIAL))
    n = int(min(max(TRIAL * RUN_SECONDS * 1e6 / max(trial_us, 1), TRIAL), MOST))
    context.settings["accesses_of_each_kind"] = n

    def measure(target):
        return {line["kind"]: line["total_us"] * 1000 / line["n"] for line in run(target, n)}

    return [Cell("accesses", FIGURES, measure)]
