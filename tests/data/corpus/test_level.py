"""What a token is: a text falls into tokens, and these join to a text again."""

from __future__ import annotations

import numpy as np
import pytest

from data.corpus.level import CHAR, LEVELS, WORD, Level
from data.errors import CorpusError

SAID = "Über dem Meer,\n  to be 🙂 "


def test_characters_and_words_are_split_and_joined() -> None:
    assert CHAR.split("a b\n") == ["a", " ", "b", "\n"]
    assert CHAR.join(["a", " ", "b"]) == "a b"
    assert WORD.split(" to  be\n") == ["to", "be"]
    assert WORD.join(["to", "be"]) == "to be"
    assert {name: level.name for name, level in LEVELS.items()} == {"char": "char", "word": "word"}


def test_a_line_end_among_words_is_one_in_the_text() -> None:
    assert WORD.join(["to", "be", "↵", "or", "↵", "↵", "not"]) == "to be\nor\n\nnot"
    assert WORD.join(["↵", "to", "↵"]) == "\nto\n"
    assert CHAR.join("a↵b") == "a↵b"


@pytest.mark.parametrize("level", LEVELS.values(), ids=lambda level: level.name)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_where_a_text_is_cut_into_chunks_does_not_show(level: Level, size: int) -> None:
    chunks = [SAID[at : at + size] for at in range(0, len(SAID), size)]
    assert [token for tokens in level.tokens(chunks) for token in tokens] == level.split(SAID)
    pieces = [
        [*map(chr, piece.tolist())] if isinstance(piece, np.ndarray) else piece.to_pylist()
        for piece in level.pieces(chunks)
    ]
    assert [token for tokens in pieces for token in tokens] == level.split(SAID)


def test_a_text_without_white_space_has_no_words() -> None:
    endless = ["x" * 300_000] * 4
    for read in (WORD.tokens, WORD.pieces):
        with pytest.raises(CorpusError, match="no words to speak of"):
            list(read(endless))
