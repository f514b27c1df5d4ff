"""The picture of growth: lines on axes that show ratios alike, drawn as the reports draw theirs, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from stages.report import svg
from stages.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Line

Curve = Sequence[tuple[float, float]]
"""Sizes and figures."""
STYLES = {"download": "level", "tokenize": "second", "train": "first", "evaluate": "best"}
"""What has a curve → how it is drawn, the same in every panel."""
GAP = 24
"""Between two panels."""


def panel(title: str, against: str, curves: Mapping[str, Curve]) -> Chart:
    """A chart of some curves over the same sizes, both axes logarithmic."""
    sizes = [size for size, _ in next(iter(curves.values()))]
    figures = [figure for curve in curves.values() for _, figure in curve]
    low, high = math.floor(math.log10(min(figures))), math.ceil(math.log10(max(figures)))

    def x(size: float) -> float:
        share = math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0])
        return round(LEFT + share * (RIGHT - LEFT), 1)

    def y(figure: float) -> float:
        return round(BOTTOM - (math.log10(figure) - low) / (high - low) * (BOTTOM - TOP), 1)

    lines = [
        Line(name, STYLES[name], [(x(size), y(figure)) for size, figure in curve], curve[-1][1])
        for name, curve in curves.items()
    ]
    return Chart(
        title,
        f"{title} (log scale)",
        f"{len(sizes)} sizes",
        lines,
        [(x(size), f"{size:,g}") for size in sizes],
        [(y(10.0**power), f"{10.0**power:,g}") for power in range(low, high + 1)],
        ends=True,
        x_axis=f"{against} (log scale)",
    )


def panels(charts: Sequence[Chart]) -> str:
    """Charts as one SVG, two in a row."""
    drawn = []
    width, height = round(1.25 * WIDTH), round(1.25 * (HEIGHT + 20 * len(STYLES) + 20))
    for number, chart in enumerate(charts):
        row, column = divmod(number, 2)
        place = f'<svg x="{column * (width + GAP)}" y="{row * (height + GAP)}" '
        drawn.append(svg.picture(chart).strip().replace("<svg ", place, 1))
    rows = -(-len(charts) // 2)
    size = f'width="{2 * width + GAP}" height="{rows * (height + GAP) - GAP}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(drawn)}</svg>\n'
