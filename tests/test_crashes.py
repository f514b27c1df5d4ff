"""Whatever a crash leaves of a store, the next process finds what was promised; `python -m tests.crash` tries more."""

from __future__ import annotations

from tests.crash import states


def test_no_state_that_a_crash_leaves_loses_anything() -> None:
    counts = states.tried(states.SUITE)
    assert counts["states"] >= 100_000, counts
