"""Texts that are none, broken archives and places that hold no file, a few of each: taken as is, or one sentence."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.fuzz import corpora, packed
from tests.fuzz.downloads import Place


def test_whatever_is_given_as_a_corpus_is_taken_as_it_is_or_refused_in_a_sentence(tmp_path: Path) -> None:
    place = Place(tmp_path)
    corpora.run(place, Random(17), 9, share=0.06)
    assert place.tried > 20
    assert 5 < place.refused < place.tried - 5
    assert place.problems == []


def test_an_archive_that_is_cut_or_damaged_anywhere_gives_no_other_text() -> None:
    for kind in packed.PACKERS:
        assert [*packed.everywhere(kind, "é and\n".encode() * 3, bits=1)] == []
