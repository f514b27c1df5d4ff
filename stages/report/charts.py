"""What is drawn: figures over epochs, or over nights, as lines in the coordinates of a chart."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stages.report import words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Points = Sequence[tuple[float, float]]
    Column = tuple[str, str, Sequence[float | None]]
    """Name, style, and a value per epoch or night."""
    Ticks = Sequence[tuple[float, str]]
    """Where a tick stands, and its label."""

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 508, 12, 252
"""Where the figures are, within the drawing's width and height."""
_MOST_POINTS = 400
"""Of a line: more than a screen can tell apart."""


@dataclass(frozen=True)
class Line:
    """A line of a chart, in the chart's own coordinates."""

    name: str
    """As the legend has it; empty for a line that is not in it."""
    style: str
    """Its class in the style sheet."""
    points: Points
    last: float | None
    """The value that it ends at; None where its name stands for several lines."""


@dataclass(frozen=True)
class Chart:
    """Figures over epochs or nights, ready to be drawn."""

    title: str
    axis: str
    """What the vertical axis shows."""
    over: str
    """How many epochs or nights."""
    lines: Sequence[Line]
    """The first of them is drawn last, above the others."""
    x_ticks: Ticks
    y_ticks: Ticks
    ends: bool = False
    """Whether the end of each line is marked."""
    x_axis: str = "epoch"

    @property
    def summary(self) -> str:
        """What is drawn, for those who cannot see it."""
        named = (
            f"{line.name} {'' if line.style == 'level' else 'ends at '}{words.figure(line.last)}"
            for line in self.lines
            if line.last is not None
        )
        return f"{self.title} over {self.over}: {'; '.join(named)}"


def learning_curve(history: words.History, metrics: words.Metrics, unit: str = "epoch") -> Chart | None:
    """Perplexity per epoch or other unit, beside the baseline to beat; None where none was measured."""
    called, level = words.reference(metrics) or ("", 0.0)
    return _logarithmic(
        "Perplexity",
        unit,
        ("training split, running", "first", history["train_perplexity"]),
        ("validation split", "second", history["valid_perplexity"]),
        (called, "level", [level] * len(history["epoch"])),
    )


def gradient_norms(history: words.History, clip_norm: float, unit: str = "epoch") -> Chart | None:
    """The gradient's L2 norm before it was clipped, by epoch, beside the bound; None where none was measured."""
    largest = history.get("grad_norm_max", [])
    # A bound far above all that came is not worth flattening the rest for.
    bound = [clip_norm] * len(largest) if 0 < clip_norm <= 10 * max(filter(None, largest), default=0) else []
    return _logarithmic(
        "Gradient norm",
        unit,
        (f"mean of the {unit}", "first", history.get("grad_norm_mean", [])),
        (f"longest of the {unit}", "second", largest),
        ("clipped above this", "level", bound),
    )


def trials(columns: Sequence[Column]) -> Chart:
    """Bits per character of the validation split by epoch, a line for each trial of a sweep, the best first.

    A trial's style is ``best``, ``finished``, ``stopped`` or ``failed``.
    """
    values = [value for _, _, column in columns for value in column if value is not None and math.isfinite(value)]
    # What is far above where the best began is not worth flattening the rest for.
    most = 1.5 * max(filter(None, columns[0][2]), default=math.inf)
    seen = [value for value in values if value <= most] or [0.0]
    margin = 0.05 * (max(seen) - min(seen)) or 0.1
    low, high = min(seen) - margin, max(seen) + margin
    title, axis = "Bits per character", "validation split, bits per character"
    chart = _chart(title, axis, columns, float, low, high, linear_ticks(low, high))
    return replace(chart, lines=[chart.lines[0], *(replace(line, last=None) for line in chart.lines[1:])], ends=True)


def nights(days: Sequence[str], *columns: Column) -> Chart | None:
    """Bits per character by night; None where none was measured.

    Args:
        days: the day of each night, ``2026-11-25``.
        columns: with a value per night.
    """
    values = [value for _, _, column in columns for value in column if value is not None and math.isfinite(value)]
    if not values:
        return None
    margin = 0.08 * (max(values) - min(values)) or 0.1
    low, high = min(values) - margin, max(values) + margin
    axis = "bits per character"
    chart = _chart("Bits per character", axis, columns, float, low, high, linear_ticks(low, high), "night", days)
    return replace(chart, ends=True)


# --- from figures to coordinates


def _logarithmic(title: str, unit: str, *columns: Column) -> Chart | None:
    """A chart of the figures above 0, on an axis that shows ratios alike; None where there are none."""
    figures = [
        (name, style, [value if value and value > 0 else None for value in column]) for name, style, column in columns
    ]
    drawn = [value for _, _, column in figures for value in column if value and math.isfinite(value)]
    if not drawn:
        return None
    ticks = _log_ticks(math.log10(min(drawn)), math.log10(max(drawn)))
    low, high = ticks[0][0], ticks[-1][0]
    every = math.ceil(len(ticks) / 8)
    return _chart(title, f"{title.lower()} (log scale)", figures, math.log10, low, high, ticks[::every], unit)


def _chart(
    title: str,
    axis: str,
    columns: Sequence[Column],
    scale: Callable[[float], float],
    low: float,
    high: float,
    ticks: Ticks,
    unit: str = "epoch",
    called: Sequence[str] = (),
) -> Chart:
    """A chart of whatever is finite. ``scale`` turns a figure into a height from ``low``, the bottom, to ``high``;
    there is one per ``unit``, which ``called`` names, by default they are numbered."""
    epochs = max((len(column) for _, _, column in columns), default=1)

    def x(epoch: float) -> float:
        fraction = (epoch - 1) / (epochs - 1) if epochs > 1 else 0.5
        return round(LEFT + fraction * (RIGHT - LEFT), 1)

    def y(height: float) -> float:
        return round(BOTTOM - (height - low) / (high - low) * (BOTTOM - TOP), 1)

    lines = []
    for name, style, column in columns:
        points = [(at, value) for at, value in enumerate(column, 1) if value is not None and math.isfinite(value)]
        if points:
            places = [(x(epoch), y(scale(value))) for epoch, value in _thinned(points)]
            lines.append(Line(name, style, places, points[-1][1]))
    step = next(m * 10**k for k in range(12) for m in (1, 2, 5) if epochs <= 6 * m * 10**k)
    return Chart(
        title,
        axis,
        f"{epochs:,} {unit}{'' if epochs == 1 else 's'}",
        lines,
        [(x(epoch), called[epoch - 1] if called else f"{epoch:,}") for epoch in range(step, epochs + 1, step)],
        [(y(height), label) for height, label in ticks],
        x_axis=unit,
    )


def _log_ticks(low: float, high: float) -> Ticks:
    """Ticks 1, 2, 5, 10, … that enclose two base-10 logarithms, each with its label; of many, powers of ten alone."""
    for digits in ((1, 2, 5), (1,)):
        powers = range(math.floor(low) - 1, math.ceil(high) + 2)
        ticks = [(power + math.log10(digit), _tick(digit, power)) for power in powers for digit in digits]
        first = max(index for index, (height, _) in enumerate(ticks) if height <= low)
        last = min(index for index, (height, _) in enumerate(ticks) if height >= high and index > first)
        if last - first < 8:
            break
    return ticks[first : last + 1]


def linear_ticks(low: float, high: float) -> Ticks:
    """From three to seven round numbers between two."""
    power = math.floor(math.log10(high - low)) - 1
    digit, power = next((d, k) for k in (power, power + 1) for d in (1, 2, 5) if high - low <= 6 * d * 10.0**k)
    step = digit * 10.0**power
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [(number * step, f"{number * step:,.{max(-power, 0)}f}") for number in numbers]


def _tick(digit: int, power: int) -> str:
    if not -4 < power < 7:
        return f"{digit}e{power}"
    return f"{digit * 10**power:,}" if power >= 0 else f"{digit / 10**-power:.{-power}f}"


def _thinned(points: Points) -> Points:
    """Few enough points to draw, peaks and troughs kept: of each run of points its lowest and its highest."""
    if len(points) <= _MOST_POINTS:
        return points
    size = math.ceil(2 * len(points) / (_MOST_POINTS - 2))
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    kept = {extreme(run, key=lambda point: point[1]) for run in runs for extreme in (min, max)}
    return sorted(kept | {points[0], points[-1]})
