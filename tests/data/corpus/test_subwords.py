"""The pieces of a text are the same wherever it is cut, and bytes are written so that they can be seen."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from data.corpus import subwords
from data.corpus.subwords import LETTERS, LONGEST

PIECES = {
    "the sea, 12": ["the", " sea", ",", " 12"],
    "it's\n\n  a   b  \n": ["it", "'", "s", "\n", "\n", " ", " a", "  ", " b", "  ", "\n"],
    "x1٢y": ["x", "1٢", "y"],
    "“Été — e\u0301te\u0301”": ["“", "Été", " —", " e\u0301te\u0301", "”"],
    "你好，世界。\u3000नमस्ते": ["你好", "，", "世界", "。", "\u3000", "नमस्ते"],
    "a\t\tb\u00a0c \t d": ["a", "\t\t", "b", "\u00a0", "c", " \t", " d"],
    "می\u200cخواهم 🙂👍🏽": ["می\u200cخواهم", " 🙂👍🏽"],
    "": [],
    "   ": ["   "],
}
MANY = ["a", "B", "1", " ", "  ", "\n", ".", "—", "é", "你", "🙂", "\t", "\u00a0", "\u0301"]
RUNS = [piece * times for piece in ("x", " ", ".", "🙂") for times in (63, 64, 65, 66, 128, 129)]


@pytest.mark.parametrize("text", PIECES)
def test_a_piece_is_a_run_with_the_space_before_it_and_a_line_end_one_of_its_own(text: str) -> None:
    assert subwords.split(text) == PIECES[text]


def test_wherever_a_text_is_cut_into_chunks_or_behind_a_line_it_has_the_same_pieces() -> None:
    chance = random.Random(18)
    for _ in range(150):
        text = "".join(chance.choices(MANY + RUNS, k=chance.randrange(20)))
        whole = subwords.split(text)
        assert "".join(whole) == text
        assert all(0 < len(piece) <= LONGEST for piece in whole)
        at = sorted(chance.choices(range(len(text) + 1), k=chance.randrange(12)))
        chunks = [text[start:stop] for start, stop in zip([0, *at], [*at, len(text)], strict=True)]
        assert [piece for array in subwords.pieces(chunks) for piece in array.to_pylist()] == whole
        assert [piece for line in text.splitlines(keepends=True) for piece in subwords.split(line)] == whole


def test_an_array_holds_each_piece_once() -> None:
    arrays = list(subwords.pieces(["the sea the sea "] * (subwords.TOGETHER + 1)))
    assert [len(array) for array in arrays] == [4 * subwords.TOGETHER, 3 + 2]  # the last space waited for what follows
    assert sorted(arrays[0].dictionary.to_pylist()) == [" sea", " the", "the"]


def test_what_a_character_is_follows_from_no_version_of_python() -> None:
    kinds = hashlib.sha256(subwords._kinds().tobytes()).hexdigest()
    assert kinds[:16] == "ff79d58193279ccf"


def test_each_byte_has_a_letter_that_can_be_seen() -> None:
    assert len(set(LETTERS)) == 256
    assert all(letter.isprintable() and not letter.isspace() for letter in LETTERS)
    assert subwords.written(" the\n") == "ĠtheĊ"
    every = bytes(range(256))
    assert subwords.raw(LETTERS) == every
    for text in ("a\x00 é\xad", "你好🙂", "\ud800"):
        assert subwords.raw(subwords.written(text)) == text.encode("utf-8", "surrogatepass")


def test_characters_count_where_they_begin() -> None:
    text = "é 你🙂e\u0301"
    written = subwords.written(text)
    assert subwords.characters(written) == len(text)
    assert [subwords.characters(letter) for letter in written].count(1) == len(text)
    assert np.sum([subwords.characters(written[at : at + 3]) for at in range(0, len(written), 3)]) == len(text)
