"""Runs a scenario: every cell in turn with each of the targets, again and again (A B A B …), so that
what else happens on the machine meets all of them alike."""

import dataclasses
import time
from collections.abc import Callable

from . import figures
from .errors import Failure
from .targets import Ivmm


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is measured in one go: with one start of a guest, or one mount."""
    title: str
    figures: list
    measure: Callable  # (target) -> {key of a figure: value, or a list of several}; empty: nothing to be
                       # measured with this one
    once: bool = False  # in the first round only


def run(scenario, context, qemu, repeat):
    """Measures ivmm and, when `qemu` (a QemuHost) is given and there, QEMU. Returns the scenario's
    part of the JSON; "error" is in it when ivmm did not do the work."""
    context.notes, context.settings = [], {}
    context.peers = qemu is not None
    context.qemu = qemu if qemu and qemu.path else None
    if scenario.GUESTS and qemu and not context.qemu:
        context.notes.append("there is no peer: QEMU (qemu-system-x86) is not installed")
    result = {"name": scenario.NAME, "repeat": repeat, "settings": context.settings,
              "notes": context.notes, "figures": []}
    started = time.monotonic()
    samples = {}  # of a figure, of a label
    cells = []
    try:
        context.progress(f"{scenario.NAME}: preparing")
        targets = scenario.targets(context)
        cells = scenario.plan(context, targets)
        for turn in range(repeat):
            for cell in cells:
                if cell.once and turn > 0:
                    continue
                for target in list(targets):
                    context.progress(f"{scenario.NAME}: {cell.title}: {target.label}, {turn + 1} of {repeat}")
                    _sample(cell, target, targets, samples, context)
    except Failure as failure:
        result["error"] = str(failure)
    for cell in cells:
        for figure in cell.figures:
            if figure.key in samples:
                result["figures"].append(figures.as_json(figure, samples[figure.key]))
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


def _sample(cell, target, targets, samples, context):
    try:
        values = cell.measure(target)
    except Failure as failure:
        if isinstance(target, Ivmm):
            raise
        # A peer that does not run here is no fault of ivmm's.
        context.notes.append(f"{target.label} is left out from here on: {failure}")
        targets.remove(target)
        return
    for key, value in values.items():
        several = value if isinstance(value, list) else [value]
        samples.setdefault(key, {}).setdefault(target.label, []).extend(several)
