"""The reports of a store: written once, and again when they would say something else, without running a stage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import StoreError
from data.store.folder import Store
from stages.pipeline.run import Outcome
from stages.report import kept, page
from stages.report.gather import Report

ROOT = Path(__file__).parents[3]
Run = Callable[..., Report]


@pytest.fixture
def outcomes(run: Run) -> list[Outcome]:
    """Of a run that had nothing to do."""
    return [replace(one, state="cached", seconds=0.0, reason="unchanged") for one in run().outcomes.values()]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def names(path: Path | None) -> set[str]:
    assert path is not None
    return {found.name for found in path.parent.iterdir()}


def moments(path: Path | None) -> dict[str, int]:
    assert path is not None
    return {found.name: found.stat().st_mtime_ns for found in path.parent.iterdir()}


def test_a_report_is_a_page_its_markdown_its_curve_and_a_record(store: Store, outcomes: list[Outcome]) -> None:
    report = kept.keep(store, outcomes)
    key = outcomes[-1].artifact.manifest.key[:16]
    assert report.page == store.root / "reports" / f"{key}.html"
    assert names(report.page) == {f"{key}.{suffix}" for suffix in ("html", "md", "svg", "json")}
    assert f"![perplexity per epoch]({key}.svg)" in report.markdown
    assert report.metrics["summary"] in report.markdown
    assert report.metrics["description"] in report.markdown
    measured = json.loads((outcomes[-1].artifact.folder / "metrics.json").read_text(encoding="utf-8"))
    assert "summary" not in measured
    assert "description" not in measured
    assert report.metrics.items() > measured.items()


def test_it_is_written_once(store: Store, outcomes: list[Outcome]) -> None:
    first = kept.keep(store, outcomes)
    before = moments(first.page)
    assert kept.keep(store, outcomes) == first
    assert moments(first.page) == before


def test_two_runs_that_end_at_once_write_it_one_after_the_other(
    store: Store, outcomes: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, alone = kept._write, []

    def watched(page: Path, *arguments: Any) -> kept.Record:
        with store.alone(f"reports-{page.stem}") as free:
            alone.append(free)
        return write(page, *arguments)

    monkeypatch.setattr(kept, "_write", watched)
    kept.keep(store, outcomes)
    assert alone == [False]


@pytest.mark.parametrize("suffix", [".html", ".md", ".svg", ".json"])
def test_what_is_missing_is_written_again(
    store: Store, outcomes: list[Outcome], promoted: dict[str, Any], suffix: str
) -> None:
    first = kept.keep(store, outcomes, promoted)
    assert first.page is not None
    first.page.with_suffix(suffix).unlink()
    assert kept.keep(store, outcomes) == first
    assert first.page.with_suffix(suffix).is_file()
    assert ("✓ Promoted" in first.page.read_text(encoding="utf-8")) == (suffix != ".json"), "only the record knows that"


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"words": 1}'])
def test_a_broken_record_is_written_again(store: Store, outcomes: list[Outcome], record: str) -> None:
    first = kept.keep(store, outcomes)
    assert first.page is not None
    first.page.with_suffix(".json").write_text(record)
    assert kept.keep(store, outcomes) == first
    assert json.loads(first.page.with_suffix(".json").read_text())["summary"] == first.metrics["summary"]


def test_made_again_it_still_tells_the_verdict_and_the_run(
    store: Store, outcomes: list[Outcome], promoted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = [*outcomes[:-1], replace(outcomes[-1], state="ran", seconds=65.0, reason="evaluate.seed: 0 → 1")]
    path = kept.keep(store, ran, promoted).page
    assert path is not None
    told = path.read_text(encoding="utf-8")
    assert "✓ Promoted" in told

    monkeypatch.setattr(kept, "_WORDS", "other words")
    kept.keep(store, outcomes)
    assert path.read_text(encoding="utf-8") == told, "the same but for the words, which are the same here"
    assert "evaluate.seed: 0 → 1" in told
    assert "1 min 05 s" in told

    kept.keep(store, ran)
    assert "✓ Promoted" in path.read_text(encoding="utf-8"), "a forced evaluation takes no verdict back"
    kept.keep(store, outcomes, {**promoted, "promoted": False, "reason": "it could be chance"})
    told = path.read_text(encoding="utf-8")
    assert "✕ Not promoted" in told
    assert "evaluate.seed" not in told, "with a verdict it tells of the run that came to it"


def test_a_report_is_written_whole_or_not_at_all(
    store: Store, outcomes: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.root.mkdir()
    reports = store.root / "reports"
    reports.write_text("a file in its place")
    with pytest.raises(StoreError, match="cannot be written"):
        kept.keep(store, outcomes)
    assert kept.unkept(outcomes).page is None
    reports.unlink()

    path = kept.keep(store, outcomes).page
    assert path is not None
    before = path.read_text(encoding="utf-8")
    monkeypatch.setattr(kept, "_WORDS", "other words")
    monkeypatch.setattr(page, "html", lambda report: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kept.keep(store, outcomes)
    assert path.read_text(encoding="utf-8") == before
    assert not [name for name in names(path) if name.endswith(".new")]


def test_a_store_that_takes_no_report_has_the_same_to_say(store: Store, outcomes: list[Outcome]) -> None:
    report, other = kept.keep(store, outcomes), kept.unkept(outcomes)
    assert other.metrics == report.metrics
    assert other.markdown == report.markdown.replace(
        f"![perplexity per epoch]({outcomes[-1].artifact.manifest.key[:16]}.svg)\n\n", ""
    )


# --- from the command line, on a copy of the project


class Copy:
    """A copy of the project that can be edited, and a store."""

    def __init__(self, folder: Path, preset: Path) -> None:
        self.project, self.store, self.preset = folder / "project", folder / "store", preset
        for floor in ("data", "stages"):
            ignored = shutil.ignore_patterns("artifacts", "__pycache__")
            shutil.copytree(ROOT / floor, self.project / floor, ignore=ignored)

    def run(self, *options: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "RNNLM_STORE": str(self.store), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PYTHONPATH"] = str(self.project)
        command = [sys.executable, *python, "-m", "stages.cli", "run", "--preset", str(self.preset), *options]
        done = subprocess.run(
            command, cwd=self.project, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.project / "stages" / "report" / name
        source = path.read_text(encoding="utf-8")
        assert old in source, f"{name} no longer has what this test edits"
        path.write_text(source.replace(old, new, 1), encoding="utf-8")

    def report(self, suffix: str) -> str:
        (path,) = (self.store / "reports").glob(f"*{suffix}")
        return path.read_text(encoding="utf-8")


def test_other_words_or_colours_make_the_page_anew_and_run_no_stage(
    tmp_path: Path, tiny_settings: str, tiny_text: str
) -> None:
    (tmp_path / "text.txt").write_text(tiny_text, encoding="utf-8")
    preset = tmp_path / "tiny.toml"
    preset.write_text(f'[download]\ncorpus = "{tmp_path / "text.txt"}"\n{tiny_settings}', encoding="utf-8")
    copy = Copy(tmp_path, preset)
    first = copy.run()
    loaded = copy.run(python=("-X", "importtime"))
    assert loaded.stdout == first.stdout
    assert loaded.stderr.count("cached (unchanged since") == 4
    imports = [line for line in loaded.stderr.splitlines() if line.startswith("import time:")]
    modules = {line.rpartition("|")[2].strip() for line in imports}
    heavy = {"jinja2", "pyarrow", "mxnet", "stages.report.page", "stages.report.gather"}
    assert not modules & heavy, "nothing has to be written"

    copy.edit("words.py", "The gradient's norm", "The norm of the gradient")
    worded = copy.run()
    assert worded.stderr.count("cached (unchanged since") == 4
    assert worded.stdout == first.stdout.replace("The gradient's norm", "The norm of the gradient")

    curve, text = copy.report(".svg"), copy.report(".html")
    copy.edit("svg.py", "#4a80e0", "#00aa44")
    copy.edit("svg.py", "#2456b8", "#00bb55")
    assert copy.run().stderr.count("cached (unchanged since") == 4
    assert copy.report(".svg") == curve.replace("#4a80e0", "#00aa44") != curve
    assert copy.report(".html") == text.replace("#2456b8", "#00bb55") != text

    copy.edit("page.html.j2", "How it learnt", "How it came to know")
    printed = copy.run("--json")
    assert {stage["state"] for stage in json.loads(printed.stdout)["stages"]} == {"cached"}
    assert "How it came to know" in copy.report(".html")
