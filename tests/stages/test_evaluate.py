"""The evaluate stage: its figures against an independent count, its report, and splits too short to measure."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from data.store import Store
from data.tokens import IndexTable
from stages import config, pipeline
from stages.evaluate import evaluate
from stages.lm.sampler import LanguageModel


def run(folder: Path, preset: Path, *assignments: str) -> dict[str, Path]:
    chosen = config.load(str(preset), None, assignments)
    silent = lambda stage: lambda done, total, figures: None  # noqa: E731
    return {outcome.name: outcome.artifact.folder for outcome in pipeline.run(chosen, Store(folder / "store"), silent)}


@pytest.fixture
def folders(tmp_path: Path, tiny: Path) -> dict[str, Path]:
    return run(tmp_path, tiny, "train.epochs=5")


def metrics(folders: dict[str, Path]) -> dict[str, Any]:
    return json.loads((folders["evaluate"] / "metrics.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_every_figure_is_the_mean_over_the_whole_split(folders: dict[str, Path]) -> None:
    model = LanguageModel.load(folders["train"])
    table = IndexTable.open(folders["tokenize"] / "tokens.arrow")
    counts = Counter(table.split("train").tolist())
    for name in ("train", "valid", "test"):
        ids = table.split(name).tolist()
        figures = metrics(folders)[name]
        losses = [float(loss) for chunk in model.losses(table.split(name)) for loss in chunk]
        assert figures["tokens"] == len(losses) == len(ids) - 1
        assert figures["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
        assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
        assert figures["bits_per_character"] == pytest.approx(figures["loss"] / math.log(2))

        baselines = metrics(folders)["baselines"]
        assert baselines["uniform"][name]["perplexity"] == pytest.approx(table.vocab_size)
        total = counts.total() + table.vocab_size
        unigram = [-math.log((counts[token] + 1) / total) for token in ids[1:]]
        assert baselines["unigram"][name]["loss"] == pytest.approx(sum(unigram) / len(unigram))


def test_the_state_is_carried_through_the_whole_split(folders: dict[str, Path]) -> None:
    model = LanguageModel.load(folders["train"])
    ids = IndexTable.open(folders["tokenize"] / "tokens.arrow").split("train")
    whole = model.loss(ids)
    middle = len(ids) // 2
    cut = (model.loss(ids[: middle + 1]) * middle + model.loss(ids[middle:]) * (len(ids) - 1 - middle)) / (len(ids) - 1)
    assert whole != cut, "a state that starts anew in the middle shows"
    assert metrics(folders)["train"]["loss"] == pytest.approx(whole)


def test_words_are_measured_per_character_too(tmp_path: Path, tiny: Path) -> None:
    folders = run(tmp_path, tiny, "tokenize.level=word")
    split = IndexTable.open(folders["tokenize"] / "tokens.arrow").splits["train"]
    figures = metrics(folders)["train"]
    per_token = split.characters / len(split)
    assert 3 < per_token < 6
    assert figures["bits_per_character"] == pytest.approx(figures["loss"] / math.log(2) / per_token)


def test_continuations_are_greedy_and_drawn_and_repeat(folders: dict[str, Path], tmp_path: Path) -> None:
    samples = json.loads((folders["evaluate"] / "samples.json").read_text(encoding="utf-8"))
    assert [sample["temperature"] for sample in samples] == [0.0, 0.7, 1.0]
    for sample in samples:
        assert sample["text"].startswith("the")
        assert len(sample["text"]) == len("the") + 8
    again = tmp_path / "again"
    again.mkdir()
    chosen = config.EvaluateConfig(prefixes=("the",), length=8)
    evaluate(chosen, folders["train"], folders["tokenize"], again, lambda done, total, figures: None)
    for path in again.iterdir():
        assert path.read_bytes() == (folders["evaluate"] / path.name).read_bytes()


def test_the_curve_is_a_picture_of_something(folders: dict[str, Path]) -> None:
    picture = matplotlib.image.imread(folders["evaluate"] / "curve.png")
    assert picture.shape[1] > 600
    assert picture.min() < 0.5 < picture.max()


def test_a_split_too_short_to_measure_is_null_and_said_so(tmp_path: Path, tiny: Path) -> None:
    folders = run(
        tmp_path, tiny, "tokenize.train_share=1", "tokenize.valid_share=0", "tokenize.test_share=0", "train.epochs=1"
    )
    assert metrics(folders)["valid"] is None
    assert metrics(folders)["baselines"]["unigram"]["test"] is None
    report = (folders["evaluate"] / "report.md").read_text(encoding="utf-8")
    assert "| valid | too short to measure |" in report
    assert "No text was held out" in report


@pytest.mark.parametrize(
    ("epochs", "text", "said"),
    [
        (60, "the cat sat on the mat and the dog ran away from it all. " * 40, "where mere token frequencies reach"),
        (1, "the cat sat on the mat and the dog ran away from it all. " * 10, "no better than mere token frequencies"),
        (200, "".join(random.Random(0).choices("abcdefgh", k=600)), "learnt its text by heart"),
    ],
    ids=["learnt", "not yet", "by heart"],
)
def test_the_verdict_tells_learning_from_memory(tmp_path: Path, tiny: Path, epochs: int, text: str, said: str) -> None:
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    folders = run(tmp_path, tiny, f"train.epochs={epochs}", "train.hidden_size=64")
    assert said in (folders["evaluate"] / "report.md").read_text(encoding="utf-8")


def test_a_prefix_cannot_break_the_report(tmp_path: Path, tiny: Path) -> None:
    folders = run(tmp_path, tiny, 'evaluate.prefixes=["a`b\\n\\n# not a heading"]')
    report = (folders["evaluate"] / "report.md").read_text(encoding="utf-8")
    assert not [line for line in report.splitlines() if line.startswith("# not a heading")]
