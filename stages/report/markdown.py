"""The report as Markdown: what `rnnlm run` prints, and the longer form for Prefect's UI."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from data.moment import minute
from data.shown import visible
from data.tables.tokens import SPLITS
from stages.report import beside, charts, documents, svg, words
from stages.report.words import figure, signed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stages.pipeline.run import Outcome
    from stages.report.gather import Report


def text(report: Report, picture: str) -> str:
    """What the model is, how well it predicts, what it writes and how it learnt.

    Args:
        report: the run.
        picture: the address of the learning curve; empty where there is none.
    """
    return visible("\n".join(["# Language model report", "", *_model(report, picture)]))


def artifact(report: Report) -> str:
    """The same with its picture inside, the verdict before it, and after it what ran and where it comes from."""
    curve = charts.learning_curve(report.history, report.metrics, report.unit)
    inside = inline(svg.picture(curve)) if curve else ""
    verdict = _verdict(report.verdict) if report.verdict else ()
    lines = ["# Language model report", "", *verdict, *_model(report, inside), *_provenance(report)]
    return visible("\n".join([*lines, ""]))


def inline(picture: str) -> str:
    """The address of an SVG picture that stands inside the text."""
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode('ascii')}"


def _model(report: Report, picture: str) -> Iterator[str]:
    metrics, noun, others = report.metrics, report.level.noun, beside.beside(report.model, report.metrics)
    yield from (report.description, "", f"**{report.summary}**", "", "## How well it predicts", "")
    yield (f"| split | {noun}s | perplexity | bits per character | loss (nats) | unknown | {' | '.join(others)} |")
    yield f"|---|{'--:|' * (5 + len(others))}"
    for name in SPLITS:
        row = metrics[name]
        if row is None:
            yield f"| {name} | too short to measure |{' |' * (4 + len(others))}"
            continue
        perplexities = (figure(rows[name]["perplexity"]) for rows in others.values())
        yield (
            f"| {name} | {row['tokens']:,} | {figure(row['perplexity'])} | {row['bits_per_character']:.4g} | "
            f"{row['loss']:.5g} | {row['unknown_rate']:.2%} | {' | '.join(perplexities)} |"
        )
    last = {3: "three", 5: "five"}[len(others)]
    yield from ("", f"The last {last} columns are perplexities too. {beside.baselines(metrics, noun)}", "")
    if mixture := beside.mixture(report.model, metrics, noun):
        yield from (mixture, "")
    if part := words.part(metrics, noun):
        yield from (part, "")
    if unknown := words.unknown(metrics, noun):
        yield from (unknown, "")
    if windowed := words.windowed(metrics, noun):
        yield from (windowed, "")
    if report.documents:
        yield from (documents.divided(report.documents), "")
    yield from ("## What it writes", "")
    for sample in report.samples:
        how = "greedily" if sample["temperature"] == 0 else f"at temperature {sample['temperature']:g}"
        prefix = " ".join(sample["prefix"].replace("`", "'").split())  # so that it stays in its code span
        written = (f"    {line}" for line in sample["text"].split("\n"))
        yield from (f"`{prefix}`, continued {how}:" if prefix else f"From nothing, {how}:", "", *written, "")
    yield from (words.memory(metrics), "", "## How it learnt", "")
    if picture:
        yield from (f"![perplexity per {report.unit}]({picture})", "")
    yield from (words.gradients(report.history, report.unit), "")


def _verdict(verdict: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## {words.decision(verdict)}", "", plain(words.sentence(verdict["reason"])), "")
    if not (compared := words.comparisons(verdict)):
        return
    yield f"| bits per character | this model | champion | gain | {100 * compared[0]['confidence']:.6g} % interval |"
    yield "|---|--:|--:|--:|--:|"
    for one in compared:
        yield (
            f"| of {words.TEXTS[one['text']]}, {one['characters']:,} characters{words.left_out(one)} | "
            f"{one['bits']:.4f} | {one['bits_champion']:.4f} | {signed(one['gain'])} | {signed(one['lower'])} to "
            f"{signed(one['upper'])} |"
        )
    yield ""


def _provenance(report: Report) -> Iterator[str]:
    outcomes, source = report.outcomes.values(), report.source
    yield from ("## What ran, and why", "")
    for one in outcomes:  # a list, for Prefect cuts long cells of a table
        yield f"- **{one.name}** {one.state} ({words.duration(one.seconds)}): {plain(one.reason)}"
    yield from ("", "## Configuration", "", "| field | value |", "|---|---|")
    for one in outcomes:
        for field, value in one.artifact.manifest.config.items():
            yield f"| {one.name}.{field} | {plain(_value(value))} |"
    yield from ("", "## Where it comes from", "")
    several = f" in {source['documents']:,} documents" if source.get("documents") else ""
    yield (
        f"Corpus {plain(source['name'])}: {plain(source.get('address') or source['file'])}, {source['bytes']:,} "
        f"bytes{several}, SHA-256 `{source['sha256']}`."
    )
    yield ""
    yield "| stage | key | made from | made | commit | by | seed | with |"
    yield "|---|---|---|---|---|---|---|---|"
    for one in outcomes:
        manifest = one.artifact.manifest
        parents = ", ".join(f"{name} `{key[:16]}`" for name, key in manifest.parents.items())
        cells = [manifest.stage, f"`{manifest.key[:16]}`", parents or "the corpus", minute(manifest.created)]
        cells += [_commit(manifest.git), plain(words.computed(manifest.components, manifest.device))]
        cells += ["" if manifest.seed is None else str(manifest.seed)]
        cells += [plain(", ".join(f"{name} {version}" for name, version in _versions(one).items()))]
        yield f"| {' | '.join(cells)} |"


def _versions(outcome: Outcome) -> dict[str, str]:
    manifest = outcome.artifact.manifest
    return {**manifest.versions, **manifest.components.get("libraries", {})}


def _commit(git: Mapping[str, Any] | None) -> str:
    return f"`{git['commit'][:10]}`{' and changes' if git['dirty'] else ''}" if git else ""


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def plain(text: str) -> str:
    """Text that Markdown takes as it stands, on one line, wherever that begins."""
    return re.sub(r"([\\`*_\[\]<>|~&$]|^[#+-](?=[#\s])|^\d+(?=[.)]\s))", _literally, " ".join(text.split()))


def _literally(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"
