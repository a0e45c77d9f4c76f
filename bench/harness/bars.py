"""Bars: what a figure must reach. They stand in bars.toml."""

import tomllib

from .errors import Unusable
from .figures import number

LIMITS = {
    "at_most": lambda value, limit: value <= limit,
    "at_least": lambda value, limit: value >= limit,
    "ratio_at_most": lambda value, limit: value <= limit,
    "ratio_at_least": lambda value, limit: value >= limit,
}
OTHER_KEYS = {"scenario", "figure", "hosts", "peer", "of"}
STATISTICS = ("median", "p99")  # `of`


def load(path):
    try:
        with open(path, "rb") as file:
            bars = tomllib.load(file).get("bar", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Unusable(f"cannot use the bars in {path}: {error}") from error
    for bar in bars:
        limits = [key for key in bar if key in LIMITS]
        unknown = set(bar) - set(LIMITS) - OTHER_KEYS
        if unknown or len(limits) != 1 or "scenario" not in bar or "figure" not in bar or not _has_statistic(bar, limits):
            raise Unusable(f"{path}: a bar has a scenario, a figure and one of {', '.join(LIMITS)}: {bar}")
    return bars


def _has_statistic(bar, limits):
    """Ratios are of medians."""
    of = bar.get("of", "median")
    return of == "median" or (of in STATISTICS and not limits[0].startswith("ratio"))


def judge(bars, scenario, host_kind):
    """Compares the medians of a scenario, or what a bar names. Returns (lines to show, how many bars are missed)."""
    lines, missed = [], 0
    figures = {figure["key"]: figure for figure in scenario["figures"]}
    for bar in bars:
        if bar["scenario"] != scenario["name"] or host_kind not in bar.get("hosts", [host_kind]):
            continue
        limit_name = next(key for key in bar if key in LIMITS)
        limit, holds = bar[limit_name], LIMITS[limit_name]
        figure = figures.get(bar["figure"])
        of_peer = f" × {bar['peer']}" if "peer" in bar else ""
        of = bar.get("of", "median")
        name = bar["figure"] if of == "median" else f"{of} of {bar['figure']}"
        wanted = f"{name}: {limit_name.replace('_', ' ')} {limit:g}{of_peer}"
        if figure is None or "ivmm" not in figure["summary"]:
            missed += 1
            lines.append(f"  MISSED  {wanted}; it was not measured")
            continue
        if limit_name.startswith("ratio"):
            values = [(f"{number(ratio)} × {label}", ratio) for label, ratio in figure["ratio"].items()
                      if label == bar.get("peer", label)]
            if not values:
                lines.append(f"  open    {wanted}; it was not measured beside {bar.get('peer', 'any peer')}")
        else:
            value = figure["summary"]["ivmm"][of]
            values = [(f"{number(value)} {figure['unit']}", value)]
        for shown, value in values:
            good = holds(value, limit)
            missed += not good
            lines.append(f"  {'ok    ' if good else 'MISSED'}  {wanted}; measured {shown}")
    return lines, missed
