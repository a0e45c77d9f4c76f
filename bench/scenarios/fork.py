"""Forking a running guest to a standby that is kept in sync."""

import random
import time

from harness import dirty, memory
from harness.errors import Failure
from harness.figures import Figure
from harness.migration import DOWNTIME_MS, Chain
from harness.runner import Cell
from harness.targets import Qemu

NAME = "fork"
SUMMARY = "clones of a running 1 GiB guest that writes at a rate: its pause, and until the clone runs"
REPEAT = 3
PEER = True
GUESTS = True

FORKS = 10           # of each rate in a round
MIGRATIONS = 3       # likewise
REGION_MIB = 512     # that the guest fills, and writes to
INTERVAL_MS = 50     # between two reports of the guest
SYNC_TIMEOUT = 60    # seconds
REPORT_TIMEOUT = 30
SETTLED_ROUNDS = 3   # of a standby, before it is forked
POLL_SECONDS = 0.02
REPLICA = "memfd:ivmm-replica"
MIB = 1 << 20

# MB/s; 0 is as fast as it goes, which no migration would keep up with.
RATES = {"1": 1, "100": 100, "500": 500, "max": 0}
TITLES = {"1": "1 MB/s", "100": "100 MB/s", "500": "500 MB/s", "max": "no limit"}

# (key, title, unit, the name in the answer to `fork`, that many of its units)
REPORTED = [
    ("pause", "pause", "µs", "pause_us", 1),
    ("stop", "… until nothing ran", "µs", "stop_us", 1),
    ("residual_copy", "… last pages", "µs", "residual_copy_us", 1),
    ("state", "… state", "µs", "state_us", 1),
    ("disk", "… disks", "µs", "disk_fork_us", 1),
    ("resume", "… resume", "µs", "resume_us", 1),
    ("residual_pages", "pages copied in the pause", "pages", "residual_pages", 1),
    ("trigger_to_run", "call to the clone's first instruction", "ms", "trigger_to_run_us", 1000),
    ("trigger_to_pause", "… call to the pause", "ms", "trigger_to_pause_us", 1000),
    ("extra_rounds", "… rounds in it", "rounds", "rounds", 1),
    ("clone_private", "clone's private memory at its start", "MiB", "clone_private_bytes", MIB),
]
OBSERVED = [
    ("answer", "call to its answer", "ms"),
    ("gap", "the guest stood still, as it saw it", "µs"),
    ("gap_before", "… and without a fork", "µs"),
    ("behind", "pages of the last round before the call", "pages"),
    ("interval", "time between two rounds", "ms"),
    ("replica", "memory of the replica", "MiB"),
    ("standby_private", "private memory of the standby's process", "MiB"),
    ("resync", "until the next standby is in sync", "s"),
]


def figures_of(rate):
    entries = [entry[:3] for entry in REPORTED] + OBSERVED
    return [Figure(f"{key}_{rate}", f"{TITLES[rate]}: {title}", unit, "lower") for key, title, unit in entries]


FIGURES = [figure for rate in RATES for figure in figures_of(rate)]


def targets(context):
    return [context.ivmm] + ([Qemu(context.qemu.path, "threads", "qemu migration")] if context.qemu else [])


def plan(context, _):
    context.settings.update({
        "memory_mib": dirty.MEMORY_MIB, "region_mib": REGION_MIB, "forks_a_round": FORKS,
        "migrations_a_round": MIGRATIONS, "qemu_downtime_limit_ms": DOWNTIME_MS})
    return [_cell(context, rate) for rate in RATES]


def _cell(context, rate):
    def measure(target):
        guest = dirty.guest(context, rate=RATES[rate], region_mib=REGION_MIB, interval_ms=INTERVAL_MS)
        if target is context.ivmm:
            samples = _forks(context, guest)
        else:
            samples = _migrations(context, target, guest) if RATES[rate] else {}
        return {f"{key}_{rate}": values for key, values in samples.items()}

    return Cell(TITLES[rate], figures_of(rate), measure)


def _collect(rounds):
    samples = {}
    for values in rounds:
        for key, value in values.items():
            samples.setdefault(key, []).append(value)
    return samples


def _forks(context, guest):
    with context.start(context.ivmm, guest) as running:
        running.wait_for("generation=", dirty.START_TIMEOUT)
        with context.control(context.ivmm_name(running)) as control:
            control.call("standby", SYNC_TIMEOUT)
            samples = _collect(_fork(context, running, control) for _ in range(FORKS))
            control.stop_guest()
        return samples


def _fork(context, running, control):
    status = _wait(control, lambda said: said["rounds"] >= SETTLED_ROUNDS)
    usage = memory.of_process(status["pid"], REPLICA)
    # At any point between two rounds, not right after one.
    running.read_for(random.uniform(0, status["interval_ms"] / 1000))
    running.take_lines()
    before = dirty.longest_gap(dirty.next_report(running, REPORT_TIMEOUT))
    status = control.call("standby.status")

    running.take_lines()
    called = time.monotonic()
    report = control.call("fork", SYNC_TIMEOUT)
    answered = time.monotonic()
    if report["waited_for_sync"] or usage is None:
        raise Failure(f"there was no standby in sync: {status['error'] or status['phase']}")
    gap = dirty.longest_gap(dirty.next_report(running, REPORT_TIMEOUT))
    _wait(control, lambda said: True)
    in_sync = time.monotonic()
    _end_clone(context, report["clone"])
    return {**{key: report[name] / units for key, _, _, name, units in REPORTED},
            "answer": (answered - called) * 1000, "gap": gap, "gap_before": before,
            "behind": status["last_dirty_pages"], "interval": status["interval_ms"],
            "replica": status["replica_bytes"] / MIB, "standby_private": usage[0].private / 1024,
            "resync": in_sync - answered}


def _wait(control, settled):
    """Until there is a standby in sync whose status is as it should be. Returns the status."""
    deadline = time.monotonic() + SYNC_TIMEOUT
    while time.monotonic() < deadline:
        status = control.call("standby.status")
        if status["phase"] == "failed":
            raise Failure(f"the standby has failed: {status['error']}")
        if status["phase"] == "in-sync" and settled(status):
            return status
        time.sleep(POLL_SECONDS)
    raise Failure(f"no standby was in sync within {SYNC_TIMEOUT} s")


def _end_clone(context, name):
    """When it has shown that it runs."""
    with context.control(name) as clone:
        clone.wait_for_console("generation=", REPORT_TIMEOUT)
        clone.stop_guest()
    context.ivmm_call("rm", name)


def _migrations(context, target, guest):
    with Chain(context, target.path, guest) as chain:
        chain.running.wait_for("generation=", dirty.START_TIMEOUT)
        return _collect(_migration(chain) for _ in range(MIGRATIONS))


def _migration(chain):
    said = chain.move()
    chain.running.wait_for("generation=", REPORT_TIMEOUT)
    return {"pause": said["downtime"] * 1000, "trigger_to_run": said["total-time"]}
