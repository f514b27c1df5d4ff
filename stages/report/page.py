"""The report of a run: one HTML page that needs nothing but itself, and the same as markdown for Prefect's UI."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.corpus.text import normalize_prefix
from data.errors import StoreError
from data.store.files import replace
from data.tables.tokens import SPLITS
from stages.evaluate import BASELINES, reference, told_baselines, told_memory, told_window
from stages.pipeline import graph
from stages.pipeline.decide import when

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from data.store.folder import Store
    from stages.pipeline.run import Outcome

    Points = Sequence[tuple[float, float]]

_MOST_POINTS = 400
"""Of a line in a chart: more than a screen can tell apart."""


@dataclass(frozen=True)
class Report:
    """All that a report tells of a finished run."""

    outcomes: Mapping[str, Outcome]
    """Stage → what became of it."""
    verdict: Mapping[str, Any] | None
    """What `stages.judge` made of it, as JSON; None where nothing was to be promoted."""
    prose: str
    """``report.md`` of `evaluate`."""
    picture: bytes
    """Its ``curve.png``."""
    metrics: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    history: Mapping[str, Sequence[float | None]]
    """The columns of ``history.arrow``, one row per epoch."""
    model: Mapping[str, Any]
    """``config.json`` of `train`."""
    source: Mapping[str, Any]
    """``source.json`` of `download`."""

    @property
    def summary(self) -> str:
        """How the model did against its baselines, in one sentence."""
        said: str = self.metrics["summary"]
        return said

    @property
    def description(self) -> str:
        """The model in one sentence."""
        said: str = self.metrics["description"]
        return said


def gather(outcomes: Iterable[Outcome], verdict: Mapping[str, Any] | None = None) -> Report:
    """Read what a run of all four stages left behind; ``verdict`` is as in `Report`."""
    by_name = {outcome.name: outcome for outcome in outcomes}
    folders = {name: by_name[name].artifact.folder for name in graph.shown()}
    evaluated = folders["evaluate"]
    return Report(
        by_name,
        verdict,
        prose=(evaluated / "report.md").read_text(encoding="utf-8"),
        picture=(evaluated / "curve.png").read_bytes(),
        metrics=_json(evaluated / "metrics.json"),
        samples=_json(evaluated / "samples.json"),
        history=_history(folders["train"] / "history.arrow"),
        model=_json(folders["train"] / "config.json"),
        source=_json(folders["download"] / "source.json"),
    )


def html(report: Report) -> str:
    """One page without scripts, for light and dark, phones and paper; it asks no network for anything."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=_bytes, duration=_duration, figure=_figure, sentence=_sentence, signed=_signed, when=when
    )
    split = _told_split(report.metrics)
    token = "character" if report.model["level"] == "char" else "word"
    return environment.get_template("page.html.j2").render(
        report=report,
        stages=[report.outcomes[name] for name in graph.shown()],
        token=token,
        dropout=_dropout(report),
        split=split,
        splits=SPLITS,
        baselines=BASELINES,
        told_baselines=told_baselines(report.metrics, token),
        told_memory=told_memory(report.metrics),
        told_window=told_window(report.metrics, token),
        bars=_bars(report.metrics),
        charts=_charts(report),
        interval=_interval(report.verdict),
        samples=[{**sample, **_parted(sample, report.model)} for sample in report.samples],
    )


def markdown(report: Report) -> str:
    """`evaluate`'s report with its picture inside, the verdict before it, and after it where all of it comes from."""
    title, _, prose = report.prose.partition("\n")
    before, _, after = prose.rpartition("(curve.png)")
    picture = base64.b64encode(report.picture).decode("ascii")
    lines = [title, "", *_verdict_lines(report.verdict), f"{before}(data:image/png;base64,{picture}){after}"]
    lines += ["## What ran, and why", "", "| stage | state | time | why |", "|---|---|--:|---|"]
    stages = [report.outcomes[name] for name in graph.shown()]
    lines += [f"| {one.name} | {one.state} | {_duration(one.seconds)} | {_plain(one.reason)} |" for one in stages]
    lines += ["", "## Configuration", "", "| field | value |", "|---|---|"]
    for outcome in stages:
        config = outcome.artifact.manifest.config
        lines += [f"| {outcome.name}.{field} | {_plain(_value(value))} |" for field, value in config.items()]
    source = report.source
    lines += [
        "",
        "## Where it comes from",
        "",
        f"Corpus {_plain(source['name'])}: {_plain(source.get('address') or source['file'])}, {source['bytes']:,} "
        f"bytes, SHA-256 `{source['sha256']}`.",
        "",
        "| stage | key | made from | made | commit | device | seed | with |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for outcome in stages:
        manifest = outcome.artifact.manifest
        parents = ", ".join(f"{name} `{key[:16]}`" for name, key in manifest.parents.items())
        cells = [manifest.stage, f"`{manifest.key[:16]}`", parents or "the corpus", when(outcome.artifact)]
        cells += [_commit(manifest.git), manifest.device or "", "" if manifest.seed is None else str(manifest.seed)]
        cells += [", ".join(f"{name} {version}" for name, version in _versions(outcome).items())]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def page(store: Store, outcomes: Sequence[Outcome]) -> Path:
    """Where the page about a run belongs, by the evaluation that it ended with."""
    return store.root / "reports" / f"{outcomes[-1].artifact.manifest.key[:16]}.html"


def keep(store: Store, outcomes: Sequence[Outcome], verdict: Mapping[str, Any] | None = None) -> Path:
    """See that there is a page about a run; one is written where none is, or where it has something new to tell.

    Raises:
        StoreError: a place that cannot be written.
    """
    path = page(store, outcomes)
    if verdict is not None or outcomes[-1].state == "ran" or not path.is_file():
        write(gather(outcomes, verdict), path)
    return path


def write(report: Report, path: Path) -> None:
    """Put the page at ``path``, whole or not at all.

    Raises:
        StoreError: a place that cannot be written.
    """
    content = html(report).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, content)
    except OSError as error:
        raise StoreError(
            f"the report {path} cannot be written ({error.strerror}): name another place for it"
        ) from error


# --- what is read


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _history(path: Path) -> dict[str, list[float | None]]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        columns: dict[str, list[float | None]] = pa.ipc.open_file(source).read_all().to_pydict()
    return columns


# --- what is told


def _told_split(metrics: Mapping[str, Any]) -> str | None:
    """The split whose figures come first: the one that most is unseen in; None where all are too short."""
    return next((name for name in reversed(SPLITS) if metrics[name]), None)


def _bars(metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Split → bits per character of the model and of its baselines; ``share`` is of the page's width for bars."""
    bits = {
        split: {
            "this model": metrics[split]["bits_per_character"],
            **{called: metrics["baselines"][name][split]["bits_per_character"] for name, called in BASELINES.items()},
        }
        for split in SPLITS
        if metrics[split]
    }
    longest = max((value for row in bits.values() for value in row.values()), default=0) or 1
    return {
        split: [{"name": name, "bits": value, "share": round(80 * value / longest, 2)} for name, value in row.items()]
        for split, row in bits.items()
    }


def _dropout(report: Report) -> str:
    """What was dropped in training, in words; empty where nothing was."""
    config = report.outcomes["train"].artifact.manifest.config
    kinds = [("input", "inputs"), ("output", "outputs"), ("weight", "recurrent weights")]
    if report.model["layers"] > 1:
        kinds.insert(1, ("hidden", "between layers"))
    shares = [f"{share:g} ({what})" for kind, what in kinds if (share := config.get(f"{kind}_dropout"))]
    return ", ".join(shares)


def _parted(sample: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, str]:
    """A sample's text in two: the prefix as the model read it, and what the model wrote."""
    text: str = sample["text"]
    given = normalize_prefix(sample["prefix"], model["normalizer"])
    if model["level"] == "word":
        given = " ".join(given.split())
    given = given if text.startswith(given) else ""
    return {"given": given, "written": text[len(given) :]}


def _verdict_lines(verdict: Mapping[str, Any] | None) -> list[str]:
    if verdict is None:
        return []
    lines = [
        f"## {'✓ Promoted' if verdict['promoted'] else '✕ Not promoted'}",
        "",
        _plain(_sentence(verdict["reason"])),
        "",
    ]
    if verdict.get("difference") is None:
        return lines
    left_out = f", {verdict['left_out']:,} left out as seen in training" if verdict.get("left_out") else ""
    return [
        *lines,
        "| bits per character | this model | champion | difference | 99 % interval |",
        "|---|--:|--:|--:|--:|",
        f"| over {verdict['characters']:,} characters{left_out} | {verdict['candidate_bits']:.4f} | "
        f"{verdict['champion_bits']:.4f} | {_signed(verdict['difference'])} | {_signed(verdict['low'])} to "
        f"{_signed(verdict['high'])} |",
        "",
    ]


def _versions(outcome: Outcome) -> dict[str, str]:
    manifest = outcome.artifact.manifest
    return {**manifest.versions, **manifest.components.get("libraries", {})}


def _commit(git: Mapping[str, Any] | None) -> str:
    return f"`{git['commit'][:10]}`{' and changes' if git['dirty'] else ''}" if git else ""


# --- how figures are spelt


def _figure(value: float | None, digits: int = 2) -> str:
    """A number that fits its column, whatever became of it."""
    if value is None:
        return "–"
    if abs(value) >= 1e7:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}f}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _signed(bits: float) -> str:
    return f"{bits:+.4f}".replace("-", "−")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02} min"


def _bytes(size: int) -> str:
    if size < 1000:
        return f"{size} bytes"
    power = min(math.floor(math.log10(size) / 3), 3)
    return f"{size / 1000**power:,.1f} {('kB', 'MB', 'GB')[power - 1]}"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> str:
    """Text that markdown takes as it stands, on one line."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(text.split()))


# --- charts


@dataclass(frozen=True)
class Line:
    """A line of a chart, in the chart's own coordinates."""

    name: str
    style: str
    """Its class in the page's style sheet."""
    points: Points
    last: float
    """What it ends at."""


@dataclass(frozen=True)
class Chart:
    """Figures over epochs on a logarithmic axis, as the page draws them."""

    title: str
    summary: str
    """The same for those who cannot see it."""
    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    width, height = 520, 300
    left, right, top, bottom = 62, 508, 12, 252


def _charts(report: Report) -> list[Chart]:
    history = report.history
    epochs = len(history["epoch"])
    called, level = reference(report.metrics) or ("", 0.0)
    clip = report.outcomes["train"].artifact.manifest.config.get("clip_norm", 0)
    longest = max((norm for norm in history.get("grad_norm_max", ()) if norm), default=0)
    charts = [
        _chart(
            "Perplexity",
            epochs,
            ("training split, running", "first", history["train_perplexity"]),
            ("validation split", "second", history["valid_perplexity"]),
            (called, "level", [level] * epochs),
        ),
        _chart(
            "Gradient norm",
            epochs,
            ("mean of the epoch", "first", history.get("grad_norm_mean", [])),
            ("longest of the epoch", "second", history.get("grad_norm_max", [])),
            # A bound far above all that came is not worth flattening the rest for.
            ("clipped above this", "level", [clip] * epochs if 0 < clip <= 10 * longest else []),
        ),
    ]
    return [chart for chart in charts if chart is not None]


def _chart(title: str, epochs: int, *columns: tuple[str, str, Sequence[float | None]]) -> Chart | None:
    """A chart of the columns that hold figures above 0, one per epoch; None when there is none."""
    found = {
        (name, style): points
        for name, style, values in columns
        if (points := [(epoch, value) for epoch, value in enumerate(values, 1) if value and 0 < value < math.inf])
    }
    if not found:
        return None
    drawn = [value for points in found.values() for _, value in points]
    scale = _log_ticks(math.log10(min(drawn)), math.log10(max(drawn)))
    low, high = scale[0][0], scale[-1][0]

    def x(epoch: float) -> float:
        share = (epoch - 1) / (epochs - 1) if epochs > 1 else 0.5
        return round(Chart.left + share * (Chart.right - Chart.left), 1)

    def y(height: float) -> float:
        """Of a base-10 logarithm."""
        return round(Chart.bottom - (height - low) / (high - low) * (Chart.bottom - Chart.top), 1)

    lines = [
        Line(name, style, [(x(epoch), y(math.log10(value))) for epoch, value in _thinned(points)], points[-1][1])
        for (name, style), points in found.items()
    ]
    step = next(m * 10**k for k in range(12) for m in (1, 2, 5) if epochs <= 6 * m * 10**k)
    every = math.ceil(len(scale) / 8)
    return Chart(
        title,
        f"{title} over {epochs:,} epochs: "
        + "; ".join(f"{line.name} {'' if line.style == 'level' else 'ends at '}{_figure(line.last)}" for line in lines),
        lines,
        [(x(epoch), f"{epoch:,}") for epoch in range(step, epochs + 1, step)],
        [(y(height), label) for height, label in scale[::every]],
    )


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Ticks 1, 2, 5, 10, … that enclose two base-10 logarithms, each with its label; of many, powers of ten alone."""
    for digits in ((1, 2, 5), (1,)):
        powers = range(math.floor(low) - 1, math.ceil(high) + 2)
        ticks = [(power + math.log10(digit), _tick(digit, power)) for power in powers for digit in digits]
        first = max(index for index, (height, _) in enumerate(ticks) if height <= low)
        last = min(index for index, (height, _) in enumerate(ticks) if height >= high and index > first)
        if last - first < 8:
            break
    return ticks[first : last + 1]


def _tick(digit: int, power: int) -> str:
    if not -4 < power < 7:
        return f"{digit}e{power}"
    return f"{digit * 10**power:,}" if power >= 0 else f"{digit / 10**-power:.{-power}f}"


def _thinned(points: Points) -> Points:
    """Few enough points to draw, peaks and troughs kept: of each stretch its lowest and its highest."""
    if len(points) <= _MOST_POINTS:
        return points
    size = math.ceil(2 * len(points) / (_MOST_POINTS - 2))
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    kept = {extreme(stretch, key=lambda point: point[1]) for stretch in stretches for extreme in (min, max)}
    return sorted(kept | {points[0], points[-1]})


def _interval(verdict: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Where an interval lies on a scale of 0 to 100 that has "no difference" in its middle; None without a champion."""
    if verdict is None or verdict.get("difference") is None:
        return None
    low, difference, high = (verdict[name] for name in ("low", "difference", "high"))
    reach = 1.15 * max(abs(low), abs(high), abs(difference)) or 1.0
    return {
        name: round(50 + 50 * value / reach, 2)
        for name, value in (("low", low), ("difference", difference), ("high", high))
    }
