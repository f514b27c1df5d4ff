"""The baselines of a corpus: what each split costs, and which tokens were counted."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.tables.tokens import IndexTable, Split
from stages.config import StageConfig
from stages.lm import baselines as module
from stages.lm.baselines import baselines
from stages.lm.ngram import NGram


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """An index table of 90 training tokens, 9 to validate on, and 1 to test on."""
    ids = np.array(random.Random(6).choices([1, 1, 2, 3], k=100), np.uint8)
    splits = {"train": Split(0, 90, 90, 0), "valid": Split(90, 99, 9, 0), "test": Split(99, 100, 1, 0)}
    IndexTable(ids, splits, "char", "none", "0" * 64, 4).write(tmp_path / "tokens.arrow")
    return tmp_path


def measure(tokens: Path, calls: list[tuple[float, float]] | None = None) -> dict[str, Any]:
    def progress(done: float, total: float, figures: str) -> None:
        if calls is not None:
            calls.append((done, total))

    baselines(StageConfig(), tokens=tokens, out=tokens, progress=progress)
    return json.loads((tokens / "baselines.json").read_text())  # type: ignore[no-any-return]


def mean(losses: Any) -> Any:
    """Of all tokens of a split but its first."""
    return pytest.approx(float(np.concatenate([*losses]).mean()), rel=1e-6)


def test_the_splits_are_measured_from_their_own_second_token_on(tokens: Path) -> None:
    calls: list[tuple[float, float]] = []
    measured = measure(tokens, calls)
    table = IndexTable.open(tokens / "tokens.arrow")
    train, valid = table.split("train"), table.split("valid")
    ngram = NGram.fit(train, 4)
    expected = {"train": mean(ngram.losses(train)), "valid": mean(ngram.losses(valid)), "test": None}
    assert measured["losses"]["5gram"] == expected
    assert measured["losses"]["uniform"] == {"train": math.log(4), "valid": math.log(4), "test": None}
    counts = np.bincount(train, minlength=4) + 1
    unigram = [-np.log(counts / counts.sum())[ids[1:]] for ids in (train, valid)]
    expected = {"train": mean(unigram[:1]), "valid": mean(unigram[1:]), "test": None}
    assert measured["losses"]["unigram"] == expected
    assert measured["fitted_on"] == 90
    assert calls[-1] == (98, 100)


def test_of_a_long_training_split_the_last_tokens_are_counted(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FITTED", 30)
    measured = measure(tokens)
    assert measured["fitted_on"] == 30
    table = IndexTable.open(tokens / "tokens.arrow")
    ngram = NGram.fit(table.split("train")[-30:], 4)
    assert measured["losses"]["5gram"]["valid"] == mean(ngram.losses(table.split("valid")))
