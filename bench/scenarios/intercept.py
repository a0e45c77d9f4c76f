"""An attacker of a Linux server is moved to a clone at an alert, again and again."""

import json
import os
import signal
import subprocess
import sys

import harness
from harness.errors import Failure
from harness.figures import Figure
from harness.runner import Cell
from scenarios import boot

NAME = "intercept"
SUMMARY = "an alert moves the attacker of a Linux server to a clone: until his flows are there, and it answers"
REPEAT = 5
PEER = False  # nobody else does this
GUESTS = False

ATTACKS = 10  # in a round
# A program of its own, for it enters a network namespace and uses what the tests use.
ROUNDS = os.path.join(os.path.dirname(harness.__file__), "intercept_rounds.py")
TIMEOUT = 600

FIGURES = [
    Figure("committed", "alert to the flows being the clone's", "ms", "lower"),
    Figure("first_frame", "alert to the first frame from the clone", "ms", "lower"),
    Figure("pause", "the server stood still", "µs", "lower"),
    Figure("net_commit", "… for the switch", "µs", "lower"),
    Figure("hold", "the attacker's frames waited", "µs", "lower"),
    Figure("held", "frames that waited", "frames", "lower"),
    Figure("lost", "frames that had no room", "frames", "lower"),
    Figure("user_round_trip", "a user's slowest round trip in the half second after the alert", "ms", "lower"),
    Figure("user_round_trip_before", "… in the half second before", "ms", "lower"),
]


def targets(context):
    return [context.ivmm]


def plan(context, _):
    if os.geteuid() != 0:
        raise Failure("it needs root: it makes network namespaces and mounts an overlay")
    kernel, rootfs = boot.images(context, NAME)
    context.settings.update({"attacks_a_round": ATTACKS, "memory_mib": 128, "cpus": 1})

    def measure(target):
        environment = {**context.environment, "IVMM": target.path, "IVMM_GUEST_KERNEL": kernel,
                       "IVMM_GUEST_ROOTFS": rootfs, "IVMM_TEST_CACHE": context.scratch}
        with subprocess.Popen(
                ["unshare", "--net", sys.executable, ROUNDS, str(ATTACKS)],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as rounds:
            try:
                output, errors = rounds.communicate(timeout=TIMEOUT)
            except BaseException:
                rounds.send_signal(signal.SIGINT)  # so that it cleans up
                rounds.wait(TIMEOUT)
                raise
        if rounds.returncode != 0:
            raise Failure(f"the rounds have failed: {errors.strip().splitlines()[-1:]}")
        samples = {}
        for line in output.splitlines():
            for key, value in json.loads(line).items():
                samples.setdefault(key, []).append(value)
        return samples

    return [Cell("Linux", FIGURES, measure)]
