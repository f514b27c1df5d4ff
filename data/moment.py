"""Moments: as files keep them, and as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def now(timespec: str = "microseconds") -> str:
    """The present moment, ISO 8601 in UTC: ``2026-01-02T03:04:05.678901+00:00``; ``timespec`` as of ``isoformat``."""
    return datetime.now(UTC).isoformat(timespec=timespec)


def minute(moment: str) -> str:
    """A moment of `now` for people: ``2026-01-02 03:04 UTC``."""
    return f"{moment[:16].replace('T', ' ')} UTC"
