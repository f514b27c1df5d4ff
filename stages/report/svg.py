"""The drawing: a chart as SVG, inside the page and as a picture that stands alone."""

from __future__ import annotations

import re
import textwrap
from html import escape
from typing import TYPE_CHECKING

from stages.report import words
from stages.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stages.report.charts import Chart, Line

LIGHT = {
    "card": "#fffefb",
    "ink": "#1d1f24",
    "soft": "#5c6069",
    "line": "#dedad0",
    "first": "#2456b8",
    "second": "#b0500a",
    "level": "#6a6e77",
}
DARK = {
    "card": "#1b1e25",
    "ink": "#e9e7e1",
    "soft": "#a4a9b3",
    "line": "#333842",
    "first": "#85b1ff",
    "second": "#ffae63",
    "level": "#959ba6",
}
ANYWHERE = {
    "ink": "#7b8089",
    "soft": "#7b8089",
    "line": "#9ca1aa55",
    "first": "#4a80e0",
    "second": "#c8702a",
    "level": "#8a8f98",
}
"""On white and on near-black alike: whoever shows a picture decides what is under it, Prefect's pages for one."""
STYLE = """
.chart text { fill: var(--soft); font-size: 13px; }
.chart .axis { font-size: 12.5px; }
.grid line { stroke: var(--line); }
polyline, .swatch line { fill: none; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round; }
.first { stroke: var(--first); } .second { stroke: var(--second); } .level { stroke: var(--level); }
polyline.second, line.second { stroke-dasharray: 7 5; }
polyline.level, line.level { stroke-dasharray: .1 5; }
circle { stroke: none; }
circle.first { fill: var(--first); } circle.second { fill: var(--second); } circle.level { fill: var(--level); }
"""
"""How lines look on the page, where the reader's light or dark gives the colours."""
_ALONE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
.chart .name { fill: var(--ink); } .chart .last { fill: var(--ink); font-weight: 600; }
.best { stroke: var(--second); stroke-width: 3.2; } circle.best { fill: var(--second); }
.finished { stroke: var(--first); stroke-width: 1.3; } circle.finished { fill: var(--first); }
.stopped { stroke: var(--level); stroke-width: 1.3; } circle.stopped { fill: var(--level); }
.failed { stroke: var(--ink); stroke-width: 1.3; stroke-dasharray: 3 4; }
path.failed { stroke-dasharray: none; stroke-width: 2; }
"""
"""What a picture needs beside it."""
_ROW = 20
"""Height of a row of a picture's legend."""
_LETTERS = 54
"""What such a row has room for, beside a figure."""


def inline(chart: Chart) -> str:
    """The drawing as a part of the page, whose style sheet holds `STYLE` and whose legend stands beside it."""
    frame = {"class": "chart", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": chart.summary}
    return _element("svg", frame, *_plot(chart))


def picture(chart: Chart) -> str:
    """The drawing as a file of its own, with its legend and without a ground, legible on a light one and a dark one."""
    legend: list[str] = []
    for line in chart.lines:
        if not line.name:
            continue
        first, *others = textwrap.wrap(line.name, _LETTERS)
        y = _ROW * (len(legend) + 1)
        swatch = _element("line", {"class": line.style, "x1": LEFT, "y1": y - 4, "x2": LEFT + 24, "y2": y - 4})
        last = "" if line.last is None else _element("tspan", {"class": "last", "dx": 8}, words.figure(line.last))
        name = _element("text", {"class": "name", "x": LEFT + 34, "y": y}, escape(first), "" if others else last)
        legend.append(_element("g", {"class": "swatch"}, swatch) + name)
        for number, text in enumerate(others, 1):
            place = {"class": "name", "x": LEFT + 34, "y": y + _ROW * number}
            legend.append(_element("text", place, escape(text), last if number == len(others) else ""))
    above = _ROW * len(legend) + 12
    height = HEIGHT + above + 8
    frame = {
        "xmlns": "http://www.w3.org/2000/svg",
        "class": "chart",
        "width": round(1.25 * WIDTH),
        "height": round(1.25 * height),
        "viewBox": f"0 0 {WIDTH} {height}",
        "role": "img",
        "aria-label": chart.summary,
    }
    style = re.sub(r"var\(--(\w+)\)", lambda found: ANYWHERE[found[1]], STYLE + _ALONE)
    plot = _element("g", {"transform": f"translate(0 {above})"}, *_plot(chart))
    return _element("svg", frame, _element("style", {}, style), *legend, plot) + "\n"


def _plot(chart: Chart) -> Iterable[str]:
    """The axes and the lines."""
    grid = []
    for y, label in chart.y_ticks:
        grid.append(_element("line", {"x1": LEFT, "y1": y, "x2": RIGHT, "y2": y}))
        grid.append(_element("text", {"x": LEFT - 8, "y": y, "dy": ".35em", "text-anchor": "end"}, label))
    for x, label in chart.x_ticks:
        grid.append(_element("line", {"x1": x, "y1": BOTTOM, "x2": x, "y2": BOTTOM + 5}))
        anchor = "end" if x + 4 * len(label) > WIDTH else "middle"
        grid.append(_element("text", {"x": x, "y": BOTTOM + 22, "text-anchor": anchor}, label))
    yield _element("g", {"class": "grid"}, *grid)
    middle = {"class": "axis", "text-anchor": "middle"}
    yield _element("text", {**middle, "x": (LEFT + RIGHT) / 2, "y": HEIGHT - 4}, chart.x_axis)
    turned = f"translate(13 {(TOP + BOTTOM) / 2}) rotate(-90)"
    yield _element("text", {**middle, "transform": turned}, escape(chart.axis))
    # A frame of its own cuts off what leaves it, some pixels around the axes.
    x, y, width, height = LEFT - 6, TOP - 6, RIGHT - LEFT + 12, BOTTOM - TOP + 12
    frame = {"x": x, "y": y, "width": width, "height": height, "viewBox": f"{x} {y} {width} {height}"}
    yield _element("svg", frame, *(_line(line, chart.ends) for line in reversed(chart.lines)))


def _line(line: Line, end: bool) -> str:
    title = _element("title", {}, escape(line.name)) if line.name else ""
    x, y = line.points[-1]
    mark = _element("circle", {"class": line.style, "cx": x, "cy": y, "r": 3.5 if end else 4.5}, title)
    if line.style == "failed":
        mark = _element("path", {"class": line.style, "d": f"M{x - 4} {y - 4}l8 8m0 -8l-8 8"}, title)
    if len(line.points) == 1:
        return mark
    points = " ".join(f"{x},{y}" for x, y in line.points)
    return _element("polyline", {"class": line.style, "points": points}, title) + (mark if end else "")


def _element(tag: str, attributes: Mapping[str, object], *content: str) -> str:
    """Markup of an element; values of attributes are escaped here, the content by who gives it."""
    given = "".join(f' {name}="{escape(str(value))}"' for name, value in attributes.items())
    return f"<{tag}{given}>{''.join(content)}</{tag}>" if any(content) else f"<{tag}{given}/>"
