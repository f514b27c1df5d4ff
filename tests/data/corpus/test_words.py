"""Words are those of ``str.split``, wherever a text is cut, and each different one is held once."""

from __future__ import annotations

import random
import sys

import pytest

from data.corpus.words import TOGETHER, words
from data.errors import CorpusError

TEXTS = {
    "nothing": "",
    "no word": " \n\t \n",
    "one word": "word",
    "prose": "The Time Machine\n\n  by H. G. Wells\n\n\nI -- the\tfirst-\nborn, said: “no”.\n",
    "many scripts": "Überfluß — œuvre İstanbul; ΟΔΥΣΣΕΥΣ ΣΑΣ. Σ\nПривет, МИР! 你好，世界。 🙂 a\u0301 שלום",
    "rare white space": "a\u2028b\x85c\x1cd\u3000e\xa0\x0bf\x0c",
    "other controls": "a\x00b \x00 \x07 \x7f\n\x00",
    "of all lengths": " ".join("x" * length + "é" * (length % 3) for length in range(1, 40)) + " x é",
}


@pytest.mark.parametrize("source", TEXTS.values(), ids=TEXTS.keys())
def test_words_are_those_of_str_split_wherever_the_text_is_cut(source: str) -> None:
    chance = random.Random(source)
    for _ in range(20):
        at = sorted(chance.choices(range(len(source) + 1), k=chance.randrange(30)))
        chunks = [source[start:stop] for start, stop in zip([0, *at], [*at, len(source)], strict=True)]
        arrays = list(words(chunks))
        assert [word for array in arrays for word in array.to_pylist()] == source.split()
        assert all(len(array) for array in arrays)


def test_white_space_is_what_python_calls_white_space() -> None:
    every = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    source = " x".join(every[at : at + 5000] for at in range(0, len(every), 5000))
    assert [word for array in words([source]) for word in array.to_pylist()] == source.split()


def test_a_few_chunks_make_an_array_that_holds_each_word_once() -> None:
    arrays = list(words(["to be or  not to be "] * (TOGETHER + 1)))
    assert [len(array) for array in arrays] == [6 * TOGETHER, 6]
    for array in arrays:
        assert set(array.dictionary.to_pylist()) >= {"to", "be", "or", "not"}
        assert len(array.dictionary.unique()) == len(array.dictionary) <= 5


def test_a_text_without_white_space_is_no_text_of_words() -> None:
    with pytest.raises(CorpusError, match=r"tokenize\.level=char"):
        list(words(["x" * 400_000] * 3))
    assert sum(map(len, words(["x" * 400_000, "x y"]))) == 2
