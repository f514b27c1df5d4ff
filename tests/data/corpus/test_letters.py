"""Capitals spelt with shifts: every text comes back, wherever it is cut and whatever it goes on with."""

from __future__ import annotations

import random

import numpy as np
import pytest

from data.corpus import letters
from data.corpus.letters import SHIFT, UNSHIFT, Told, after, spell, spelt
from data.corpus.text import code_points

ALPHABET = "AaBbZz_9² .\nÉé\u0301ßſİıǅǆΣςσﬁ中ªÀ🙂𐐀𐐨"
"""With letters of one case, of three, of two small ones for a capital, and of four bytes."""


def told(text: str, so_far: str = "") -> str:
    come = Told(so_far)
    return "".join(map(come.add, text))


def shown(text: str) -> str:
    return spelt(text).replace(SHIFT, "⇧").replace(UNSHIFT, "⇩")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The KING", "⇧the ⇧k⇧ing"),
        ("TVs", "⇧t⇧v⇩s"),
        ("HTMLParser", "⇧h⇧tmlp⇩arser"),
        ("MOST_MARKS_2A = A", "⇧m⇧ost_marks_2a = ⇧a"),
        ("I. A.", "⇧i. ⇧a."),
        ("İß", "İß"),
        ("", ""),
    ],
)
def test_a_capital_has_a_shift_and_a_word_of_capitals_two(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert told(spelt(text)) == text


def test_any_text_comes_back_and_is_spelt_alike_wherever_it_is_cut() -> None:
    chance = random.Random(7)
    for _ in range(20_000):
        text = "".join(chance.choices(ALPHABET, k=chance.randrange(12)))
        whole = spelt(text)
        assert told(whole) == text
        first, second = sorted(chance.choices(range(len(text) + 1), k=2))
        parts = [*spell([text[:first], text[first:second], text[second:]])]
        assert "".join(parts) == whole, text
        assert spelt(text[:first]) == parts[0], "what a text begins with does not depend on how it goes on"
        cut = chance.randrange(len(whole) + 1)
        assert told(whole[:cut]) + told(whole[cut:], after(whole[:cut])) == text
        assert np.count_nonzero(letters.characters(code_points(whole))) == len(text)


def test_what_no_text_should_have_is_replaced() -> None:
    assert told(spelt(f"a{SHIFT}b{UNSHIFT}C")) == "a\ufffdb\ufffdC"


def test_shifts_that_a_model_draws_anywhere_add_nothing() -> None:
    assert told(f"{SHIFT}{SHIFT}a{UNSHIFT}b{SHIFT} {SHIFT}9c{SHIFT}ß{UNSHIFT}{UNSHIFT}d{SHIFT}") == "Ab 9cßd"
