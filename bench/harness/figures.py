"""Figures: what is measured, its samples, and how they are shown."""

import dataclasses
import math
import statistics

MANY = 20  # samples, from which on a percentile is shown


@dataclasses.dataclass(frozen=True)
class Figure:
    key: str     # for scripts: bars.toml and the JSON
    title: str
    unit: str
    better: str  # "lower" or "higher"


def percentile(samples, share):
    """The least sample that so many percent of them do not exceed."""
    return sorted(samples)[max(math.ceil(len(samples) * share / 100), 1) - 1]


def summary(samples):
    return {"min": min(samples), "median": statistics.median(samples), "p99": percentile(samples, 99),
            "max": max(samples)}


def as_json(figure, samples):
    """`samples`: for each label its values; ivmm is one of the labels. Ratios are ivmm to peer."""
    summaries = {label: summary(values) for label, values in samples.items() if values}
    own = summaries.get("ivmm")
    ratios = {}
    if own:
        ratios = {label: own["median"] / peer["median"]
                  for label, peer in summaries.items() if label != "ivmm" and peer["median"]}
    return {"key": figure.key, "title": figure.title, "unit": figure.unit, "better": figure.better,
            "samples": samples, "summary": summaries, "ratio": ratios}


def number(value):
    """About three digits, and thousands apart."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def verdict(figure, label):
    """The ratio of ivmm to a peer with what it means; nothing can be said while their ranges overlap."""
    ratio = figure["ratio"].get(label)
    if ratio is None:
        return ""
    own, peer = figure["summary"]["ivmm"], figure["summary"][label]
    if own["min"] <= peer["max"] and peer["min"] <= own["max"]:
        return f"{ratio:.2f} × (ranges overlap)"
    good = (ratio < 1) == (figure["better"] == "lower")
    return f"{ratio:.2f} × ({'better' if good else 'worse'})"


def table(figures):
    """Lines that show a scenario's figures: median, least and greatest for each label, and the ratio to ivmm's.
    The 99th percentile only where there are samples enough to have one."""
    rows = [["", "", "median", "min", "p99", "max", "ivmm / peer"]]
    for figure in figures:
        for place, (label, values) in enumerate(figure["summary"].items()):
            rows.append([f"{figure['title']} [{figure['unit']}]" if place == 0 else "", label,
                         number(values["median"]), number(values["min"]),
                         number(values["p99"]) if len(figure["samples"][label]) >= MANY else "",
                         number(values["max"]), verdict(figure, label)])
    if not any(row[4] for row in rows[1:]):
        rows = [row[:4] + row[5:] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[i].ljust(widths[i]) if i in (0, 1, len(row) - 1) else row[i].rjust(widths[i])
                 for i in range(len(row))]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
