"""Servers that lie, a few of them: the text is what they have, or one sentence says what came instead."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.fuzz import servers
from tests.fuzz.downloads import Place


def test_whatever_a_server_sends_is_its_text_or_one_sentence(tmp_path: Path) -> None:
    place = Place(tmp_path)
    servers.run(place, Random(17), 5, share=0.06)
    assert place.tried > 15
    assert 5 < place.refused < place.tried - 2
    assert place.problems == []
