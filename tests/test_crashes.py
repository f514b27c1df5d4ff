"""Whatever a crash leaves of a store, the next process finds what was promised; `python -m tests.crash` tries more."""

from __future__ import annotations

from tests.crash import mutations, states


def test_no_state_that_a_crash_leaves_loses_anything() -> None:
    counts = states.tried(states.SUITE)
    assert counts["states"] >= 100_000, counts


def test_a_sync_that_is_left_out_or_late_is_noticed() -> None:
    """`python -m tests.crash mutations` leaves out each one, and each lock."""
    (at,) = (at for at in mutations.places("fsync") if at.startswith("files.replace"))
    assert "does not say which model is the champion" in mutations.without(at)
    assert "does not say which model is the champion" in mutations.late(at)
