"""The Markdown: what `rnnlm run` prints, and the same with verdict and provenance for Prefect's UI."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from data.tables.borders import Found
from stages.report import charts, markdown, page, svg
from stages.report.gather import Report

Run = Callable[..., Report]


def test_what_is_printed_holds_figures_samples_and_sentences(tiny: Report) -> None:
    text = markdown.text(tiny, "curve.svg")
    assert text.startswith(f"# Language model report\n\n{tiny.description}\n\n**{tiny.summary}**\n")
    for name in ("train", "valid", "test"):
        figures = tiny.metrics[name]
        assert f"| {name} | {figures['tokens']:,} | {figures['perplexity']:.2f} | " in text
    assert "`the`, continued greedily:\n\n    the" in text
    assert "`the`, continued at temperature 0.7:" in text
    assert "![perplexity per epoch](curve.svg)" in text
    assert "The gradient's norm, before it was clipped, was " in text
    assert "![" not in markdown.text(tiny, "")


def test_splits_too_short_to_measure_are_said_to_be(tiny: Report) -> None:
    baselines = {name: {**rows, "valid": None, "test": None} for name, rows in tiny.metrics["baselines"].items()}
    text = markdown.text(
        replace(tiny, metrics={**tiny.metrics, "valid": None, "test": None, "baselines": baselines}), ""
    )
    assert "| valid | too short to measure | | | | | | | |" in text
    assert "No text was held out" in text
    assert "With the state reset" not in text


def test_figures_by_windows_name_how_they_were_measured(run: Run) -> None:
    report = run(evaluate={"window": 16})
    for text in (markdown.text(report, ""), markdown.artifact(report)):
        assert "With the state reset every 16 characters, as models of a fixed context are measured" in text
        assert f"test {report.metrics['test']['windowed']['loss']:.4f} nats, perplexity" in text


def test_a_prefix_cannot_break_it(tiny: Report) -> None:
    samples = [{"prefix": "a`b\n\n# not a heading", "temperature": 0.0, "text": "a`b\n\n# not a heading at all"}]
    text = markdown.text(replace(tiny, samples=samples), "")
    assert not [line for line in text.splitlines() if line.startswith("# not a heading")]
    assert "`a'b # not a heading`, continued greedily:" in text


def test_for_prefect_it_has_its_picture_the_verdict_and_where_it_comes_from(
    run: Run, promoted: dict[str, Any], nasty: str
) -> None:
    report = run(promoted)
    text = markdown.artifact(report)
    assert text.startswith("# Language model report\n\n## ✓ Promoted\n")
    (picture,) = re.findall(r"!\[perplexity per epoch\]\(data:image/svg\+xml;base64,([^)]+)\)", text)
    curve = charts.learning_curve(report.history, report.metrics)
    assert curve is not None
    assert base64.b64decode(picture).decode() == svg.picture(curve)
    for word in (
        report.description,
        f"**{report.summary}**",
        "2.2106 | 2.2319 | +0.0213 | +0.0117 to +0.0309",
        "train.hidden_size | 8",
        "| unigram | uniform |",
        "| bptt on the CPU |",
        "numpy 2",
    ):
        assert word in text
    for row in text.split("\n"):
        if row.startswith("| evaluate.prefixes"):
            assert nasty not in row  # Markdown would pass it through
            assert "\\<script\\>" in row


def test_a_refusal_says_why_in_words(run: Run, promoted: dict[str, Any]) -> None:
    text = markdown.artifact(run({**promoted, "promoted": False, "reason": "it could be chance"}))
    assert "## ✕ Not promoted\n\nIt could be chance." in text
    assert "There is no champion yet." in markdown.artifact(
        run({"promoted": True, "reason": "there is no champion yet", "tests": []})
    )
    assert "romoted" not in markdown.artifact(run())


def test_what_was_cached_and_why_the_rest_ran(run: Run) -> None:
    run()
    report = run(evaluate={"length": 10})
    text, reason = markdown.artifact(report), report.outcomes["evaluate"].reason
    assert "→ 10" in reason
    assert re.search(rf"^- \*\*evaluate\*\* ran \([\d.]+ s\): {reason}$", text, re.MULTILINE)
    assert text.count("cached (0.0 s): unchanged since ") == 3


def test_documents_are_told_as_they_were_divided(tiny: Report) -> None:
    assert "Documents:" not in markdown.text(tiny, "")
    found = Found(split="content", documents=(53, 5, 4), copies=2, near=(0, 1), left_out=3)
    for told in (markdown.text(replace(tiny, documents=found), ""), page.html(replace(tiny, documents=found))):
        assert (
            "Documents: 53 to train on, 5 to validate, 4 to test, each as a whole, as its content says; 2 are copies, "
            "in the split of the first of their like. Much like one of another split are 0 of those to validate and 1 "
            "of those to test, for which 3 were left out of training."
        ) in " ".join(told.split())
    found = Found(split="position", documents=(2, 0, 0), empty=1)
    assert "Documents: 2, and the splits are cut anywhere in all of them together; 1 with nothing left" in (
        markdown.text(replace(tiny, documents=found), "")
    )
