"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.corpus.text import spellings
from data.moment import minute
from data.shown import visible
from data.tables.tokens import SPLITS
from stages.report import beside, charts, documents, svg, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment

    from stages.report.gather import Report


def html(report: Report) -> str:
    """One page without scripts, for light and dark, phones and paper; it asks no network for anything."""
    train = report.outcomes["train"].artifact.manifest.components["config"]  # which its key vouches for
    drawn = (
        charts.learning_curve(report.history, report.metrics, report.unit),
        charts.gradient_norms(report.history, train.get("clip_norm", 0), report.unit),
    )
    return visible(
        environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            stages=list(report.outcomes.values()),
            words=words,
            svg=svg,
            noun=report.level.noun,
            documents=report.documents and documents.divided(report.documents),
            split=_first_split(report.metrics),
            splits=SPLITS,
            dropout=words.dropout(train),
            beside=beside.beside(report.model, report.metrics),
            baselines=beside.baselines(report.metrics, report.level.noun),
            mixture=beside.mixture(report.model, report.metrics, report.level.noun),
            bars=_bars(report),
            charts=[chart for chart in drawn if chart is not None],
            compared=_compared(report.verdict),
            samples=[{**sample, **_parted(sample, report)} for sample in report.samples],
        )
    )


def environment() -> Environment:
    """Where templates are, and how values are spelt in them; what they are given is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    spelt = {name: getattr(words, name) for name in ("computed", "duration", "figure", "sentence", "signed", "size")}
    environment.filters.update(spelt, minute=minute)
    return environment


def _first_split(metrics: words.Metrics) -> str | None:
    """The split whose figures come first: the one that most is unseen in; None where all are too short."""
    return next((name for name in reversed(SPLITS) if metrics[name]), None)


def _bars(report: Report) -> dict[str, list[dict[str, Any]]]:
    """Split → bits per character of the model and of what stands beside it; ``width`` is a percentage."""
    others = beside.beside(report.model, report.metrics)
    bits = {
        split: {
            name: rows[split]["bits_per_character"] for name, rows in {"this model": report.metrics, **others}.items()
        }
        for split in SPLITS
        if report.metrics[split]
    }
    longest = max((value for row in bits.values() for value in row.values()), default=0) or 1
    return {
        split: [{"name": name, "bits": value, "width": round(80 * value / longest, 2)} for name, value in row.items()]
        for split, row in bits.items()
    }


def _parted(sample: Mapping[str, Any], report: Report) -> dict[str, str]:
    """A sample's text in two: the prefix as the model read it, and what the model wrote."""
    text: str = sample["text"]
    level = report.level
    spelt = spellings(sample["prefix"], report.model["normalizer"], level.name)
    ways = [level.join(level.split(way)) for way in spelt]
    given = next((way for way in ways if text.startswith(way)), "")
    return {"given": given, "written": text[len(given) :]}


def _compared(verdict: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What both models were compared on, each interval in its place on one scale, in percent of its width, that has "no
    difference" in its middle; None where they were compared on nothing."""
    rows = words.comparisons(verdict) if verdict else []
    if not verdict or not rows:
        return None
    ends = ("lower", "gain", "upper")
    reach = 1.15 * max(abs(one[end]) for one in rows for end in ends) or 1.0

    def place(bits: float) -> float:
        return round(50 + 50 * bits / reach, 2)

    ticks = charts.linear_ticks(-0.9 * reach, 0.9 * reach)
    return {
        "rows": [{**one, "places": {end: place(one[end]) for end in ends}} for one in rows],
        "ticks": [
            {"value": bits, "place": place(bits), "label": f"{'+' if bits > 0 else ''}{label}".replace("-", "−")}
            for bits, label in ticks
        ],
        "silent": [test["reason"] for test in verdict.get("tests", []) if test["gain"] is None],
    }
