"""Texts that are written together while others join and leave, each of them what it is alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stages.lm.model import LanguageModel
    from stages.lm.sampling import Token


class Piece(NamedTuple):
    """What a token adds to a text."""

    text: str
    """May be empty, where a character is not complete, and is cut where a stop string begins."""
    logprob: float | None
    """The natural logarithm of what the model gives the token among all ids at temperature 1; None unless asked for."""
    likeliest: tuple[tuple[str, float], ...]
    """The likeliest tokens with theirs, best first; empty unless asked for."""


class Writing:
    """One text that is being written."""

    def __init__(self, tokens: Iterator[Token], length: int) -> None:
        self.ended: Literal["stop", "length"] | None = None
        """None while it goes on; ``stop`` is a stop string, or the model's own end of a document."""
        self._tokens, self._left = tokens, length


class Joined:
    """Texts of one model.

    Args:
        model: writes them.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._writings: dict[Writing, None] = {}

    def begin(
        self,
        prompt: str,
        length: int,
        temperature: float = 0.0,
        seed: int = 0,
        *,
        top_k: int = 0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        likeliest: int | None = None,
    ) -> Writing:
        """A text more. Arguments and errors are those of `LanguageModel.stream`.

        Args:
            likeliest: how many of the likeliest tokens come with each, and its logarithm; None is not even that.
        """
        tokens = self._model.stream(
            prompt,
            length,
            temperature,
            seed,
            top_k=top_k,
            top_p=top_p,
            stop=stop,
            probabilities=likeliest is not None,
        )
        writing = Writing(tokens, length)
        self._writings[writing] = None
        return writing

    def leave(self, writing: Writing) -> None:
        """No more of it is computed; nothing if it has ended."""
        self._writings.pop(writing, None)

    def step(self) -> list[tuple[Writing, list[Piece]]]:
        """A little work: of each text that gained some, what it gained. One that has ended comes a last time."""
        told = []
        for writing in [*self._writings]:
            pieces = []
            for text, probability in writing._tokens:
                logprob = None if probability is None else math.log(probability) if probability else -math.inf
                pieces.append(Piece(text, logprob, ()))
                writing._left -= 1
                break
            else:
                writing.ended = "stop" if writing._left else "length"
                del self._writings[writing]
            told.append((writing, pieces))
        return told

    def __len__(self) -> int:
        """Texts that are on."""
        return len(self._writings)
