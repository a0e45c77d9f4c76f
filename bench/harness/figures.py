"""Figures: what is measured, its samples, and how they are shown."""

import dataclasses
import statistics


@dataclasses.dataclass(frozen=True)
class Figure:
    key: str     # for scripts: bars.toml and the JSON
    title: str
    unit: str
    better: str  # "lower" or "higher"


def summary(samples):
    return {"min": min(samples), "median": statistics.median(samples), "max": max(samples)}


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
    """Lines that show a scenario's figures: median [min – max] a label, and the ratio to ivmm's."""
    rows = [["", "", "median", "min", "max", "ivmm / peer"]]
    for figure in figures:
        for place, (label, values) in enumerate(figure["summary"].items()):
            rows.append([f"{figure['title']} [{figure['unit']}]" if place == 0 else "", label,
                         number(values["median"]), number(values["min"]), number(values["max"]),
                         verdict(figure, label)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[i].ljust(widths[i]) if i in (0, 1, 5) else row[i].rjust(widths[i])
                 for i in range(len(row))]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
