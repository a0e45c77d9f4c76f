"""The test guest `dirty`, which writes to memory at a rate and says how that goes."""

from .context import parse_lines
from .targets import Guest

MEMORY_MIB = 1024
START_TIMEOUT = 120  # seconds for the guest to fill its region and report for the first time


def guest(context, *, rate, region_mib, interval_ms):
    """`rate` in MB/s, 0: as fast as it goes. Scattered writes to pages of which none is zero."""
    return Guest(context.guest("dirty"), f"start=16 size={region_mib} fill=1 stride=0 rate={rate} "
                 f"interval_ms={interval_ms}", memory_mib=MEMORY_MIB)


def reports(text):
    """What it says of each interval, as dicts."""
    return [line for line in parse_lines(text) if "gap_us_max" in line]


def next_report(running, timeout):
    """What it has said since the last call, and the next line."""
    text = running.take_lines()
    running.wait_for("\n", timeout)
    return text + running.take_lines()


def longest_gap(text):
    """The longest that the guest stood still, in µs, as it noticed itself."""
    return max(line["gap_us_max"] for line in reports(text))
