"""What it costs a guest that a standby is kept in sync."""

import os
import time

from harness import dirty
from harness.errors import Failure
from harness.figures import Figure
from harness.runner import Cell

NAME = "sync"
SUMMARY = "what a guest that writes to memory loses by having a standby that is kept in sync"
REPEAT = 3
PEER = False
GUESTS = True

PAIRS = 2            # without and with, in a round
REGION_MIB = 64
INTERVAL_MS = 250    # between two reports of the guest
SETTLE_SECONDS = 3   # after the standby has come or gone: the guest has been all over its region
SECONDS = 4          # that are measured then
SYNC_TIMEOUT = 60
THREAD = "standby"   # of the guest's process
PAGE = 4096

# MB/s; 0 is as fast as it goes
RATES = {"50": 50, "max": 0}
TITLES = {"50": "50 MB/s", "max": "no limit"}


def figures_of(rate):
    title = TITLES[rate]
    return [Figure(f"slowdown_{rate}", f"{title}: longer by writing, of the time", "%", "lower"),
            Figure(f"write_without_{rate}", f"{title}: write to a page, no standby", "µs", "lower"),
            Figure(f"write_with_{rate}", f"{title}: … with a standby", "µs", "lower"),
            Figure(f"speed_without_{rate}", f"{title}: written, no standby", "MB/s", "higher"),
            Figure(f"speed_with_{rate}", f"{title}: … with a standby", "MB/s", "higher"),
            Figure(f"speed_share_{rate}", f"{title}: … in proportion", "×", "higher"),
            Figure(f"rounds_{rate}", f"{title}: rounds a second", "1/s", "higher"),
            Figure(f"round_{rate}", f"{title}: a round", "ms", "lower"),
            Figure(f"thread_{rate}", f"{title}: CPU time of the thread that keeps it, of one CPU", "%", "lower")]


FIGURES = [figure for rate in RATES for figure in figures_of(rate)]


def targets(context):
    return [context.ivmm]


def plan(context, _):
    context.settings.update({"memory_mib": dirty.MEMORY_MIB, "region_mib": REGION_MIB, "pairs_a_round": PAIRS,
                             "settle_seconds": SETTLE_SECONDS, "seconds": SECONDS})
    return [_cell(context, rate) for rate in RATES]


def _cell(context, rate):
    def measure(_):
        guest = dirty.guest(context, rate=RATES[rate], region_mib=REGION_MIB, interval_ms=INTERVAL_MS)
        samples = {}
        with context.start(context.ivmm, guest) as running:
            running.wait_for("generation=", dirty.START_TIMEOUT)
            with context.control(context.ivmm_name(running)) as control:
                for _ in range(PAIRS):
                    for key, value in _pair(running, control).items():
                        samples.setdefault(f"{key}_{rate}", []).append(value)
                control.stop_guest()
        return samples

    return Cell(TITLES[rate], figures_of(rate), measure)


def _pair(running, control):
    without, _, _ = _observe(running, control, False)
    with_, standby, thread = _observe(running, control, True)
    longer = (with_.us_a_page - without.us_a_page) * with_.pages / with_.us
    return {"slowdown": longer * 100, "write_without": without.us_a_page, "write_with": with_.us_a_page,
            "speed_without": without.speed, "speed_with": with_.speed, "speed_share": with_.speed / without.speed,
            "rounds": standby["rounds"], "round": standby["last_round_us"] / 1000, "thread": thread * 100}


class Writing:
    """What the guest says of some seconds, added up."""

    def __init__(self, reports):
        if not reports:
            raise Failure("the guest has reported nothing")
        self.pages = sum(report["pages"] for report in reports)
        # The time of each interval follows from what it was at and how far it came.
        self.us = sum(report["pages"] * PAGE / report["mbps"] for report in reports if report["mbps"])
        self.us_a_page = sum(report["write_us"] for report in reports) / self.pages
        self.speed = self.pages * PAGE / self.us


def _observe(running, control, standby):
    """(the guest's writing, the standby's status, share of a CPU that its thread took)."""
    pid = control.call("status")["pid"]
    control.call("standby", SYNC_TIMEOUT, keep=standby)
    running.read_for(SETTLE_SECONDS)
    running.take_lines()
    status, cpu, begin = control.call("standby.status"), _thread_seconds(pid), time.monotonic()
    running.read_for(SECONDS)
    text = running.take_lines()
    took, cpu = time.monotonic() - begin, _thread_seconds(pid) - cpu
    rounds = control.call("standby.status")
    if standby and rounds["phase"] != "in-sync":
        raise Failure(f"the standby was lost: {rounds['error'] or rounds['phase']}")
    return (Writing(dirty.reports(text)),
            {**rounds, "rounds": (rounds["rounds"] - status["rounds"]) / took}, cpu / took)


def _thread_seconds(pid):
    """The CPU time of the thread that keeps the standby, so far; 0 without one."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as file:
                if file.read().strip() != THREAD:
                    continue
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="utf-8") as file:
                total += int(file.read().split()[0])
        except FileNotFoundError:
            continue  # it has just ended
    return total / 1e9
