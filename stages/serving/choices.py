"""Answers to a completion, in the shape of OpenAI's legacy API: all at once, or as they come."""

from __future__ import annotations

import json
import math
import secrets
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.lm.joined import Piece

LEAST = -9999.0
"""The logarithm of what is given no probability, or is not finite: JSON has no word for it."""


class Answer:
    """What the choices of one request have in common, and how far each has come.

    Args:
        model: the name that was asked for.
        key: of its model.
        choices: how many there are.
        likeliest: tokens that are listed with each; None is no logarithms at all.
        usage: whether each chunk of a stream has a place for it.
    """

    def __init__(self, model: str, key: str, choices: int, likeliest: int | None, *, usage: bool = False) -> None:
        self._common = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": key,
        }
        self._likeliest, self._usage = likeliest, usage
        self._told = [0] * choices
        """Characters of each."""
        self.tokens = 0
        """Written in all."""

    def choice(self, index: int, pieces: Sequence[Piece], finish_reason: str | None) -> dict[str, Any]:
        """What a choice has gained, or the whole of it."""
        at, self._told[index] = self._told[index], self._told[index] + sum(len(piece.text) for piece in pieces)
        return {
            "index": index,
            "text": "".join(piece.text for piece in pieces),
            "logprobs": None if self._likeliest is None else self._logprobs(pieces, at),
            "finish_reason": finish_reason,
        }

    def whole(self, choices: list[dict[str, Any]], prompt_tokens: int) -> dict[str, Any]:
        """The answer that brings everything."""
        return {**self._common, "choices": choices, "usage": self._used(prompt_tokens)}

    def chunk(self, choice: dict[str, Any]) -> bytes:
        """The event that brings what a choice has gained."""
        return event({**self._common, "choices": [choice], **({"usage": None} if self._usage else {})})

    def last(self, prompt_tokens: int) -> bytes:
        """The event that says what was used."""
        return event({**self._common, "choices": [], "usage": self._used(prompt_tokens)})

    def _used(self, prompt_tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": prompt_tokens + self.tokens,
        }

    def _logprobs(self, pieces: Sequence[Piece], at: int) -> dict[str, list[Any] | None]:
        offsets = []
        for piece in pieces:
            offsets.append(at)
            at += len(piece.text)
        return {
            "tokens": [piece.text for piece in pieces],
            "token_logprobs": [_finite(piece.logprob) for piece in pieces],
            "top_logprobs": [_top(piece) for piece in pieces] if self._likeliest else None,
            "text_offset": offsets,
        }


DONE = b"data: [DONE]\n\n"


def event(value: dict[str, Any]) -> bytes:
    """A server-sent event. In ASCII: some clients take more characters for the end of a line than the standard does."""
    return f"data: {json.dumps(value, allow_nan=False, separators=(',', ':'))}\n\n".encode()


def _top(piece: Piece) -> dict[str, float | None] | None:
    """The likeliest tokens, the one that was taken among them; two that look alike count as the likelier."""
    if piece.logprob is None:
        return None
    found: dict[str, float | None] = {}
    for token, logprob in (*piece.likeliest, (piece.text, piece.logprob)):
        found.setdefault(token, _finite(logprob))
    return found


def _finite(logprob: float | None) -> float | None:
    return logprob if logprob is None or math.isfinite(logprob) else LEAST
