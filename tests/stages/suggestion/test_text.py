"""What counting makes of a text, before anything is suggested for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from data.tables.tokens import IndexTable, Split
from stages.suggestion import text
from stages.suggestion.text import Text, _enough

if TYPE_CHECKING:
    from data.corpus.text import LevelName


@pytest.mark.parametrize(
    ("losses", "order", "repeats"),
    [
        ([2.0, 1.995], 8, False),
        ([2.0, 1.99, 1.985], 10, False),
        ([2.0, 1.97, 1.96, 1.959], 12, True),
        ([2.0, 1.9, 1.8, 1.7, 1.6], 16, True),
    ],
)
def test_ngrams_grow_as_long_as_that_saves_enough(losses: list[float], order: int, repeats: bool) -> None:
    assert _enough(lambda longer: losses[(longer - 8) // 2], 8) == (order, repeats)


@pytest.mark.parametrize(
    ("level", "grown", "short", "order"),
    [("char", 10, 900, 16), ("char", 10, 899, 10), ("char", 8, 900, 8), ("word", 6, 900, 6)],
)
def test_of_a_short_text_ngrams_that_grow_at_all_are_the_longest(
    monkeypatch: pytest.MonkeyPatch, level: LevelName, grown: int, short: int, order: int
) -> None:
    monkeypatch.setattr(text, "_enough", lambda *given: (grown, False))
    monkeypatch.setattr(text, "_SHORT", short)
    ids = np.random.default_rng(0).integers(1, 9, 900).astype(np.uint8)
    splits = {"train": Split(0, 700, 700, 0), "valid": Split(700, 800, 100, 0), "test": Split(800, 900, 100, 0)}
    assert Text.of(IndexTable(ids, splits, level, "none", "0" * 64, 9)).order == order
