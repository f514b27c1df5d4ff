"""The tokens of many documents are those of each, whatever their lengths and whoever is beside them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from data.corpus import text, together
from data.corpus.level import LEVELS
from data.corpus.text import LevelName

LINES = "Die SEE, die See!  12 \n\nÜber dem Meer 🙂 \n a\u0301  \n"


def tokens(pieces: Any) -> list[Any]:
    found: list[Any] = []
    for piece in pieces:
        found += piece.tolist() if isinstance(piece, np.ndarray) else piece.dictionary_decode().to_pylist()
    return found


@pytest.mark.parametrize("level", ["char", "letter", "word", "bpe"])
@pytest.mark.parametrize("rule", ["book", "lower", "none+nfc"])
def test_they_are_those_of_each_document(monkeypatch: pytest.MonkeyPatch, level: LevelName, rule: str) -> None:
    rng = random.Random(1)
    whole = LINES * 40
    documents = [whole[start : start + rng.choice((0, 1, 7, 80, 900))] for start in rng.sample(range(900), 40)]
    documents += ["", " \n ", "the end", "\n", "goes on "]
    monkeypatch.setattr(together, "SHORT", 500)
    monkeypatch.setattr(text, "CHUNK", 600)
    had: list[int] = []
    pieces = together.pieces(([one[:9], one[9:]] for one in documents), rule, level, had.append)
    found = tokens(pieces)
    expected = [tokens(LEVELS[level].pieces(text.normalize([one], rule, level))) for one in documents]
    assert had == [*map(len, expected)]
    assert found == [token for each in expected for token in each]
