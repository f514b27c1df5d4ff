"""What is counted of a server, as Prometheus reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from stages.serving import limits

if TYPE_CHECKING:
    from stages.serving.writer import Writer

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Borders of what is counted by time."""


class Metrics:
    """The counters of one server, in a registry of their own.

    Args:
        writer: whose texts are counted as they stand when somebody asks.
    """

    def __init__(self, writer: Writer) -> None:
        self._registry = to = CollectorRegistry()
        self.requests = Counter("rnnlm_requests", "Requests that were answered.", ["route", "status"], registry=to)
        self.seconds = Histogram(
            "rnnlm_request_seconds", "From its head to its end.", ["route"], buckets=SECONDS, registry=to
        )
        self.first = Histogram(
            "rnnlm_first_piece_seconds", "To the first text of a completion.", buckets=SECONDS, registry=to
        )
        self.tokens = Counter("rnnlm_written_tokens", "Tokens that were written for somebody.", registry=to)
        self.characters = Counter("rnnlm_written_characters", "Characters of these.", registry=to)
        self.swaps = Counter("rnnlm_swaps", "Models that took the place of one that was served.", registry=to)
        self.failed_swaps = Counter("rnnlm_failed_swaps", "Models that could not be read to do so.", registry=to)
        self.abandoned = Counter("rnnlm_abandoned", "Requests whose client did not wait for the answer.", registry=to)
        texts = Gauge("rnnlm_texts", "Texts that are being written or wait to be.", registry=to)
        texts.set_function(lambda: writer.on)
        waiting = Gauge("rnnlm_texts_waiting", "Those of them that wait, if all are of one model.", registry=to)
        waiting.set_function(lambda: max(0, writer.on - limits.CHOICES))

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
