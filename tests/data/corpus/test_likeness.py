"""Sketches of documents: each its own, whatever stands beside it, and what they say of two."""

from __future__ import annotations

import random

import numpy as np

from data.corpus import likeness
from data.corpus.likeness import SKETCH, Sketches, alike, sketches

WORDS = [
    f"{first}{last}" for first in ("sea", "tide", "boat", "gull", "net", "rain") for last in ("", "s", "man", "ward")
]


def text(seed: int, words: int) -> bytes:
    return " ".join(random.Random(seed).choices(WORDS, k=words)).encode()


def test_a_sketch_is_that_of_its_document_alone() -> None:
    texts = [text(seed, random.Random(seed).choice((1, 5, 60, 400, 9000))) for seed in range(60)]
    texts += [b"", b"the same again, " * 900, "Über, œuvre 🙂 ".encode() * 9]
    together = [*sketches(texts)]
    assert len(together) == len(texts)
    for one, found in zip(texts, together, strict=True):
        [alone] = sketches([one])
        np.testing.assert_array_equal(found, alone)
        assert 1 <= len(found) <= SKETCH
        assert (np.diff(found.astype(object)) > 0).all()


def test_it_holds_the_lowest_hashes_of_all_passages() -> None:
    content = text(1, 300)
    passages = np.unique(likeness._hashes(content))
    [found] = sketches([content])
    np.testing.assert_array_equal(found, passages[:SKETCH])


def test_case_and_signs_do_not_tell() -> None:
    plain, loud = sketches(
        [b"then the old man looked up at the sky again", b"THEN, the old man\n-- looked up at the SKY: again!"]
    )
    np.testing.assert_array_equal(plain, loud)


def test_those_that_are_alike_are_found_and_no_others() -> None:
    held_out = [text(seed, 200) for seed in range(30)]
    copy, other = held_out[7].replace(b"gull", b"tern", 2), text(99, 200)
    found = [*Sketches.of([*sketches(held_out)]).like(sketches([copy, other, held_out[3]]))]
    assert found == [[7], [], [3]]
    assert [*Sketches.of([]).like(sketches([copy]))] == [[]]
    one, half, none = sketches([held_out[0], held_out[0][:700] + held_out[1][:700], held_out[2]])
    assert not alike(one, half)
    assert not alike(one, none)
    assert alike(one, one)
