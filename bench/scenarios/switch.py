"""The switch: in memory, with its flow table; and between two network namespaces, beside others."""

import json
import os
import shutil

from harness.errors import Failure
from harness.figures import Figure
from harness.runner import Cell
from harness.switches import FAR, PEERS, OurSwitch, call

NAME = "switch"
SUMMARY = "the switch: frames, streams, flow table, latency; beside bridge, VDE2, Open vSwitch"
REPEAT = 5
PEER = True
GUESTS = False

SECONDS = 1        # that one run sends
IN_MEMORY_SECONDS = 0.5
PINGS = 5000
TIMEOUT = 60

MEMORY = [
    Figure("frames_0", "64 bytes, in memory, not IP: no flow", "Mpps", "higher"),
    Figure("frames_1k", "64 bytes, in memory, 1,000 flows", "Mpps", "higher"),
    Figure("frames_1m", "64 bytes, in memory, 1,000,000 flows", "Mpps", "higher"),
    Figure("cost_1k", "the table's share of a frame, 1,000 flows", "ns", "lower"),
    Figure("cost_1m", "the table's share of a frame, 1,000,000 flows", "ns", "lower"),
    Figure("gso", "TCP stream of 64 KiB frames, in memory", "Gb/s", "higher"),
    Figure("gso_cut", "… that the switch cuts into segments", "Gb/s", "higher"),
    Figure("flows_memory", "memory of a switch with 1,000,000 flows", "MiB", "lower"),
    Figure("flows_bytes", "… a flow", "bytes", "lower"),
    Figure("diversions_memory", "memory of 1,000 diversions", "KiB", "lower"),
    Figure("flood", "SYN flood over a full table", "Mpps", "higher"),
    Figure("flood_lost", "… of 1,000 diverted flows lost", "flows", "lower"),
    Figure("latency", "frame from process to process: median", "µs", "lower"),
    Figure("latency_p99", "frame from process to process: p99", "µs", "lower"),
    Figure("added_latency", "… more than without a switch: median", "µs", "lower"),
    Figure("added_latency_p99", "… more than without a switch: p99", "µs", "lower"),
]
BETWEEN = [
    Figure("net_frames", "64 bytes between two namespaces", "kpps", "higher"),
    Figure("net_stream", "TCP stream between two namespaces", "Gb/s", "higher"),
    Figure("net_rtt", "round trip between two namespaces: median", "µs", "lower"),
    Figure("net_rtt_p99", "round trip between two namespaces: p99", "µs", "lower"),
]
FIGURES = MEMORY + BETWEEN


def targets(context):
    found = [context.ivmm]
    if context.peers:
        for peer in PEERS:
            missing = [program for program in peer.needs if not shutil.which(program)]
            if missing:
                context.notes.append(f"{peer.label} is left out: {missing[0]} is not installed "
                                     "(scripts/install-packages bench)")
            else:
                found.append(peer())
    return found


def plan(context, _):
    context.settings.update({"seconds": SECONDS, "in_memory_seconds": IN_MEMORY_SECONDS, "pings": PINGS})
    return [Cell("in memory", MEMORY, lambda target: _in_memory(context, target)),
            Cell("between namespaces", BETWEEN, lambda target: _between(context, target))]


def _program(context, name):
    path = os.path.join(os.path.dirname(context.ivmm.path), name)
    if not os.access(path, os.X_OK):
        raise Failure(f"{path} is missing; build it with ivmm")
    return path


def _in_memory(context, target):
    if target is not context.ivmm:
        return {}
    return json.loads(call([_program(context, "switch-bench"), str(IN_MEMORY_SECONDS)], TIMEOUT))


def _between(context, target):
    if os.geteuid() != 0:
        context.notes.append(f"{target.label} was not measured between namespaces: that needs root")
        return {}
    traffic = _program(context, "traffic")
    how = OurSwitch() if target is context.ivmm else target
    with how.set_up(context) as net:
        before = net.far.received(net.port)
        net.near.run(traffic, "send", net.port, net.far.mac(net.port), str(SECONDS), timeout=TIMEOUT)
        frames = net.far.received(net.port) - before
        server = net.far.start(traffic, "serve", FAR)
        rtt, p99 = net.near.run(traffic, "ping", FAR, str(PINGS), timeout=TIMEOUT).split()
        stream = float(net.near.run(traffic, "stream", FAR, str(SECONDS), timeout=TIMEOUT))
        if server.poll() is not None:
            raise Failure(f"{target.label}: the other end has ended")
    return {"net_frames": frames / SECONDS / 1e3, "net_stream": stream * 8 / 1e9,
            "net_rtt": float(rtt), "net_rtt_p99": float(p99)}
