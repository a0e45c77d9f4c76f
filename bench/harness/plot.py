"""Draws results as a standalone SVG: for each figure a bar to the median and a line from the least to
the greatest sample, ivmm and peer one below the other. Every figure has a scale of its own."""

from html import escape

from .figures import number

WIDTH = 860
MARGIN = 24
TITLES = 250   # width of the column with the figures' titles
LABELS = 150   # of that with the labels
LABEL_MOST = 26  # characters that fit there
VALUES = 190   # of that with the numbers
BAR, GAP, FIGURE_GAP = 12, 5, 12
HEADING = 44

# Plain classes, and no variables: not every viewer of SVGs is a browser.
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .heading { font-size: 15px; font-weight: 600; }
  .faint { font-size: 11px; fill: #656d76; }
  .value { font-variant-numeric: tabular-nums; }
  .ground { fill: #ffffff; }
  .rule { stroke: #d8dee4; }
  .range { stroke: #1f2328; stroke-width: 1.2; fill: none; }
  .own { fill: #5b93e6; } .peer { fill: #b4bcc6; } .second { fill: #929ca8; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .faint { fill: #9198a1; }
    .ground { fill: #0d1117; }
    .rule { stroke: #30363d; }
    .range { stroke: #e6edf3; }
    .own { fill: #3f7fdd; } .peer { fill: #59636e; } .second { fill: #77818c; }
  }
"""


def draw(reports):
    """`reports`: pairs of a name and what `run --json` wrote. Returns the SVG's text."""
    canvas = _Canvas()
    for name, report in reports:
        about = report["host"]
        canvas.line_of_text(f"{name}: {report['started'][:16].replace('T', ' ')}, {about['kind']}, "
                            f"{about['cpus']} cpus, Linux {about['kernel']}, QEMU {about['qemu'] or 'none'}", "faint")
    for scenario in _in_order(result["name"] for _, report in reports for result in report["scenarios"]):
        canvas.heading(scenario)
        found = [(name, figure) for name, report in reports for result in report["scenarios"]
                 if result["name"] == scenario for figure in result["figures"]]
        for key in _in_order(figure["key"] for _, figure in found):
            canvas.figure([(name, figure) for name, figure in found if figure["key"] == key], len(reports) > 1)
    return canvas.finish()


def _in_order(names):
    return list(dict.fromkeys(names))


class _Canvas:
    def __init__(self):
        self.parts = []
        self.y = MARGIN

    def text(self, x, y, text, kind="", anchor="start"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>')

    def line_of_text(self, text, kind):
        self.text(MARGIN, self.y + 4, text, kind)
        self.y += 17

    def heading(self, text):
        self.y += HEADING
        self.text(MARGIN, self.y - 16, text, "heading")
        self.text(WIDTH - MARGIN, self.y - 16, "median (least – greatest)", "faint", "end")
        self.parts.append(f'<path class="rule" d="M{MARGIN} {self.y - 8:.1f}H{WIDTH - MARGIN}"/>')
        self.y += 4

    def figure(self, versions, name_files):
        """`versions`: the same figure of one or more files."""
        first = versions[0][1]
        left = MARGIN + TITLES + LABELS
        room = WIDTH - MARGIN - VALUES - left
        most = max(values["max"] for _, figure in versions for values in figure["summary"].values()) or 1
        self.text(MARGIN, self.y + BAR - 2, first["title"])
        self.text(MARGIN, self.y + BAR + 12, f"{first['unit']}, {first['better']} is better", "faint")
        top = self.y
        for name, figure in versions:
            for place, (label, values) in enumerate(figure["summary"].items()):
                shown = f"{label} · {name}" if name_files else label
                shown = shown if len(shown) <= LABEL_MOST else shown[:LABEL_MOST - 1] + "…"
                kind = "own" if label == "ivmm" else ("peer" if place < 2 else "second")
                self._row(shown, kind, values, left, room / most)
        self.y = max(self.y, top + 2 * (BAR + GAP)) + FIGURE_GAP

    def _row(self, label, kind, values, left, scale):
        middle = self.y + BAR / 2
        least, greatest = left + values["min"] * scale, left + values["max"] * scale
        self.text(left - 8, self.y + BAR - 2, label, "faint", "end")
        self.parts.append(f'<rect class="{kind}" x="{left}" y="{self.y:.1f}" rx="2" '
                          f'width="{max(values["median"] * scale, 1):.1f}" height="{BAR}"/>')
        self.parts.append(f'<path class="range" d="M{least:.1f} {middle:.1f}H{greatest:.1f}'
                          f'M{least:.1f} {middle - 3:.1f}v6M{greatest:.1f} {middle - 3:.1f}v6"/>')
        self.text(WIDTH - MARGIN, self.y + BAR - 2,
                  f"{number(values['median'])} ({number(values['min'])} – {number(values['max'])})", "value", "end")
        self.y += BAR + GAP

    def finish(self):
        height = self.y + MARGIN
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" role="img" aria-label="ivmm-bench results">',
            f"<style>{STYLE}</style>", '<rect class="ground" width="100%" height="100%"/>',
            *self.parts, "</svg>", ""])
