"""The scenarios, one file each.

A scenario has a NAME, a SUMMARY of one line, a default REPEAT, whether a PEER is wanted when nobody
says, whether it runs GUESTS (and so needs KVM), and two functions: targets(context), and plan(context, targets), which prepares what is needed
and returns the cells to measure.
"""

from . import blk, boot, evidence, exits, fork, intercept, overlay, restore, start, switch, sync

ALL = {scenario.NAME: scenario for scenario in
       (start, exits, blk, boot, overlay, fork, sync, restore, switch, intercept, evidence)}
