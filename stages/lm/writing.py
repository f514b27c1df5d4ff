"""One of the texts that are written together: what is known of it, and what each of its tokens adds."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from data.tables.tokens import END_ID
from stages.lm import sampling
from stages.lm.telling import Telling

if TYPE_CHECKING:
    import numpy.typing as npt

    from stages.lm.layers import State, Vector
    from stages.lm.model import LanguageModel
    from stages.lm.predictor import Predictor

Beside = tuple[float | None, tuple[tuple[str, float], ...]]
_NOTHING: Beside = None, ()
_DRAWN = 32
"""Random numbers at once."""


class Piece(NamedTuple):
    """What a token adds to a text."""

    text: str
    """May be empty, where a character is not complete, and is cut where a stop string begins."""
    logprob: float | None
    """The natural logarithm of what the model gives the token among all ids at temperature 1, right to 1e-4; minus
    infinity where the logits are not finite. None unless asked for."""
    likeliest: tuple[tuple[str, float], ...]
    """What the likeliest tokens would add, and theirs, best first; empty unless asked for."""


class Seen(NamedTuple):
    """What a column says of the token that comes next: logits, and 1 more than the largest one's size."""

    logits: Vector
    unit: float


class Known:
    """States that are known to the bit, and the ids to be read from there."""

    def __init__(self, states: list[State], unread: Sequence[int]) -> None:
        self.states, self.unread = states, deque(unread)

    def read(self, predictor: Predictor, until: float = math.inf) -> bool:
        """Read on until then, one id at least; whether all are read."""
        unread = self.unread
        while unread:
            predictor.advance(unread.popleft(), self.states)
            if perf_counter() >= until:
                break
        return not unread


class Prompt(Known):
    """The beginning of a text, which several may share.

    Args:
        model: reads it.
        text: as somebody typed it.
    """

    def __init__(self, model: LanguageModel, text: str) -> None:
        ids, self.after = model.begun(text)
        super().__init__(model.predictor.beginning(), ids)


class Writing:
    """One text that is being written. All but ``ended`` is for whoever writes it (`stages.lm.joined`).

    Args:
        model: of its tokens.
        prompt: may have been read, as a whole or in part.
        how: temperature, ``top_k`` and ``top_p``; they, ``length``, ``seed`` and ``stops`` are as in
            `LanguageModel.stream`.
        likeliest: how many of the likeliest tokens come with each, and its logarithm; None is not even that.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Prompt,
        length: int,
        how: tuple[float, int, float],
        seed: int,
        stops: Sequence[str],
        likeliest: int | None,
    ) -> None:
        self.ended: Literal["stop", "length"] | None = None
        """None while it goes on; ``stop`` is a stop string, or the model's own end of a document."""
        self.left, self.how, self.likeliest = length, how, likeliest
        """``left`` are tokens."""
        self.known: Known = prompt
        """The prompt, and once it is read, what is this text's own."""
        self.last = END_ID
        """The token that was taken last."""
        self.joined = False
        """Whether it is a column."""
        self.doubt: Seen | None = None
        """What the column said of a token that is in doubt."""
        self._model, self._prompt = model, prompt  # which is kept for others that have it
        self._telling = Telling[Beside](model.kind, prompt.after, stops)
        self._numbers = _numbers(seed) if how[0] else itertools.repeat(0.0)
        self.uniform = next(self._numbers)
        """In [0, 1): what the next token is drawn by."""

    def own(self) -> None:
        """Go on from the prompt, which was read."""
        if self.known is self._prompt:
            self.known = Known([*self._prompt.states], ())

    def choose(self, logits: Vector) -> int:
        """The index of what is taken of logits that are exact."""
        return sampling.draw(logits, self.uniform, *self.how) if self.how[0] else int(logits.argmax())

    def take(self, id_: int, all_logits: Vector) -> list[Piece]:
        """What the text has gained by this token.

        Args:
            id_: of the token.
            all_logits: of all ids, only looked at where ``likeliest`` is not None.
        """
        telling, token = self._telling, self._model.vocab.tokens[id_]
        self.left -= 1
        if id_ == END_ID and self._model.architecture.ends:
            added, self.ended = telling.rest(), "stop"
        else:
            added = telling.more(token, _NOTHING if self.likeliest is None else self._beside(id_, all_logits))
            if not self.left:
                added += telling.rest()
                self.ended = "length"
            if telling.stopped:
                self.ended = "stop"
            self.uniform, self.last = next(self._numbers), id_
            self.known.unread.append(id_)
        return [Piece(text, *beside) for text, beside in added]

    def _beside(self, id_: int, all_logits: Vector) -> Beside:
        logs: npt.NDArray[np.float64] = all_logits.astype(np.float64)
        logs -= logs.max()
        logs -= np.log(np.exp(logs).sum())
        logs[np.isnan(logs)] = -np.inf
        best, tokens = np.argsort(-logs, kind="stable")[: self.likeliest].tolist(), self._model.vocab.tokens
        return logs.item(id_), tuple((self._telling.alone(tokens[one]), logs.item(one)) for one in best)


def _numbers(seed: int) -> Iterator[float]:
    """What `stages.lm.sampling.chooser` draws all at once."""
    drawn = np.random.default_rng(seed)
    return (number for _ in itertools.repeat(None) for number in drawn.random(_DRAWN).tolist())
