"""Pieces that are kept on disk are the pieces that they were, code points in the smallest type."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.corpus.level import CHAR, WORD
from data.corpus.pieces import keep, kept

CHUNKS = ["plain ", "", "ÿ\n", "漢字 plain", "🙂"]


def test_characters_come_back_as_far_as_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "pieces"
    assert list(keep(CHAR.pieces(CHUNKS), path)) == [6, 0, 2, 8, 1]
    pieces = [piece for piece in kept(path, 1000) if isinstance(piece, np.ndarray)]
    assert [piece.dtype for piece in pieces] == ["uint8", "uint8", "uint8", "uint16", "uint32"]
    said = "".join(CHUNKS)
    for limit in range(len(said) + 2):
        codes = [code for piece in kept(path, limit) if isinstance(piece, np.ndarray) for code in piece.tolist()]
        assert "".join(map(chr, codes)) == said[:limit]


def test_words_come_back_as_far_as_is_asked_for(tmp_path: Path) -> None:
    path, said = tmp_path / "pieces", "".join(CHUNKS).split()
    assert sum(keep((next(WORD.pieces([f"{word} "])) for word in said), path)) == len(said)
    for limit in range(len(said) + 2):
        words = [piece.to_pylist() for piece in kept(path, limit) if not isinstance(piece, np.ndarray)]
        assert [word for piece in words for word in piece] == said[:limit]
