"""What of a text was seen in training, and what of it comes again in itself."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from stages.promotion import overlap
from stages.promotion.overlap import repeated, seen_in


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


def test_how_much_of_a_text_comes_again_wherever_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    alphabet = np.array([ord(letter) for letter in "ab é\N{SNOWMAN}"], np.uint32)
    text = alphabet[rng.integers(len(alphabet), size=3_000)]
    text[2_000:2_400] = text[100:500]  # what comes again in another place,
    text[600:1_400] = np.tile(text[600:620], 40)  # and one line over and over
    windows = [text[start : start + 50].tobytes() for start in range(len(text) - 49)]
    expected = 1 - len(set(windows)) / len(windows)
    assert 0.3 < expected < 0.5
    cuts = np.sort(rng.integers(len(text), size=70))
    assert repeated(lambda: np.split(text, cuts)) == pytest.approx(expected)
    monkeypatch.setattr(overlap, "SAMPLE", 400)
    assert repeated(lambda: np.split(text, cuts)) == pytest.approx(expected, abs=0.03)
    assert repeated(lambda: [text[:49]]) == repeated(lambda: []) == 0
    assert repeated(lambda: [text[:50]]) == 0


def test_memory_does_not_grow_with_the_text() -> None:
    piece = np.random.default_rng(5).integers(97, 123, 100_000).astype(np.uint8)
    tracemalloc.start()
    try:
        assert repeated(lambda: (piece for _ in range(100))) == pytest.approx(0.99, abs=0.001)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
