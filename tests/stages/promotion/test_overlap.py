"""What of a text was seen in training."""

from __future__ import annotations

import numpy as np

from stages.promotion.overlap import seen_in


def test_a_window_is_found_wherever_texts_are_cut() -> None:
    rng = np.random.default_rng(3)
    alphabet = np.array([ord(letter) for letter in "ab é\N{SNOWMAN}"], np.uint32)
    text, other, last = (alphabet[rng.integers(len(alphabet), size=size)] for size in (700, 900, 60))
    other[100:180], other[800:849], last[5:55] = text[300:380], text[:49], text[650:]
    strings = ["".join(map(chr, codes)) for codes in (text, other, last)]
    expected = np.zeros(len(text), bool)
    for start in range(len(text) - 49):
        if any(strings[0][start : start + 50] in string for string in strings[1:]):
            expected[start : start + 50] = True
    assert not expected[:49].any()
    assert 130 <= expected.sum() < 140
    cuts = np.sort(rng.integers(len(other), size=40))
    assert (seen_in(text, np.split(other, cuts), iter([last])) == expected).all()
    assert not seen_in(text[:49], [other]).any()
    assert not seen_in(text).any()
