"""Moments: what files keep sorts by time, and people read it to the minute."""

from __future__ import annotations

from data import moment


def test_a_moment_is_kept_in_utc_and_a_later_one_sorts_after_it() -> None:
    first = moment.now()
    assert first.endswith("+00:00")
    assert len(moment.now("seconds")) == len("2026-01-02T03:04:05+00:00")
    assert first <= moment.now()


def test_people_read_a_moment_to_the_minute() -> None:
    assert moment.minute("2026-01-02T03:04:05.678901+00:00") == "2026-01-02 03:04 UTC"
