"""What counting makes of a text, before anything is suggested for it."""

from __future__ import annotations

import pytest

from stages.suggestion.text import _enough


@pytest.mark.parametrize(
    ("losses", "order", "repeats"),
    [
        ([2.0, 1.995], 8, False),
        ([2.0, 1.99, 1.985], 10, False),
        ([2.0, 1.97, 1.96, 1.959], 12, True),
        ([2.0, 1.9, 1.8, 1.7, 1.6], 16, True),
    ],
)
def test_ngrams_grow_as_long_as_that_saves_enough(losses: list[float], order: int, repeats: bool) -> None:
    assert _enough(lambda longer: losses[(longer - 8) // 2], 8) == (order, repeats)
