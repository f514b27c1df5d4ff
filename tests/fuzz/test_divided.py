"""A few of the documents that `tests/fuzz/divided.py` divides."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.divided import case


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_documents_of_any_kind_are_divided_or_refused_in_a_sentence(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + 10):
        (tmp_path / f"{seed}").mkdir()
        case(seed, tmp_path / f"{seed}")
