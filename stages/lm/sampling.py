"""Tokens out of a model, one at a time: which one is taken, and where the text ends."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from data.errors import ConfigError

if TYPE_CHECKING:
    from stages.lm.layers import Vector
    from stages.lm.predictor import Predictor

Token: TypeAlias = tuple[str, float | None]
"""What a token adds to the text, and its probability. A plain tuple: making one is part of the time per token."""
Choose: TypeAlias = "Callable[[Vector, int], int]"
"""``choose(logits, number)``: the index of the token that is taken; ``number`` were taken before."""
Beside = TypeVar("Beside")
"""What comes with a token and stays with what that adds."""


def chooser(length: int, temperature: float, seed: int, top_k: int, top_p: float) -> Choose:
    """How each of up to ``length`` tokens is taken; the arguments are those of `LanguageModel.stream`.

    Raises:
        ConfigError: a value that does not fit.
    """
    if not temperature >= 0:
        raise ConfigError(f"temperature must be 0 or more, not {temperature}")
    if top_k < 0:
        raise ConfigError(f"top_k must be 1 or more, or 0 for all tokens, not {top_k}")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p must be above 0 and at most 1, not {top_p}")
    if not temperature:
        return lambda logits, number: int(logits.argmax())
    uniform = np.random.default_rng(seed).random(length)  # one number for each token, whatever is done with it
    return lambda logits, number: draw(logits, uniform[number], temperature, top_k, top_p)


def draw(logits: Vector, uniform: float, temperature: float, top_k: int, top_p: float) -> int:
    """The token, of those that are drawn among, at which the cumulated probability passes ``uniform`` in [0, 1)."""
    # In double precision, so that a very small temperature is not zero.
    likelihoods = logits.astype(np.float64)
    likelihoods -= likelihoods.item(likelihoods.argmax())
    if temperature != 1:
        likelihoods /= temperature
    np.exp(likelihoods, out=likelihoods)
    if not 0 < top_k < len(logits) and top_p == 1:
        return _passed(likelihoods, uniform)
    order = np.argsort(-logits, kind="stable")[: top_k or None]
    cumulated = likelihoods[order].cumsum()
    kept = order[: int(cumulated.searchsorted(top_p * cumulated[-1])) + 1]
    kept.sort()
    return int(kept[_passed(likelihoods[kept], uniform)])


def _passed(likelihoods: npt.NDArray[np.float64], uniform: float) -> int:
    cumulated = np.add.accumulate(likelihoods)
    return min(int(cumulated.searchsorted(uniform * cumulated.item(-1), "right")), len(cumulated) - 1)


def continuation(
    predictor: Predictor, prompt: Iterable[int], length: int, choose: Choose, *, first: int, probabilities: bool
) -> Iterator[tuple[int, float | None]]:
    """The ids that follow those of a prompt, each with its probability at temperature 1 if asked for, else None.

    Args:
        predictor: reads the prompt, and each id that was taken.
        prompt: ids.
        length: ids to take.
        choose: takes one of the logits from the id ``first`` on.
        first: lower ids are read but never taken.
        probabilities: among all ids, 0 where the logits are not finite.
    """
    states = predictor.beginning()
    logits, all_logits = predictor.readout(first), predictor.readout()

    def following(last: int | None, number: int) -> int:
        if last is not None:
            predictor.advance(last, states)
        return choose(logits(states), number) + first

    def probability(id_: int) -> float:
        likelihoods = all_logits(states).astype(np.float64)
        likelihoods -= likelihoods.max()
        np.exp(likelihoods, out=likelihoods)
        result = float(likelihoods[id_] / likelihoods.sum())
        return 0.0 if math.isnan(result) else result

    # A state that grew beyond bounds is bad text, not worth a warning for every token. In a context of its own,
    # for what np.errstate sets in a generator its caller has as well.
    quietly = contextvars.copy_context()
    quietly.run(np.seterr, all="ignore")
    last = None
    for id_ in prompt:
        if last is not None:
            quietly.run(predictor.advance, last, states)
        last = id_
    for number in range(length):
        last = quietly.run(following, last, number)
        yield last, quietly.run(probability, last) if probabilities else None


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    """One stop string or several, checked.

    Raises:
        ConfigError: one that is empty.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if "" in stops:
        raise ConfigError("a stop string must hold at least one character: every text would end at once")
    return stops


def until(tokens: Iterable[Token], stops: Sequence[str]) -> Iterator[Token]:
    """The tokens before the first stop string, the last one cut; what may be the beginning of one waits."""
    before = Before[float | None](stops)
    for token in tokens:
        yield from before.more(token)
        if before.found:
            return
    yield from before.rest()


class Before(Generic[Beside]):
    """What stands before the first stop string, as tokens come one after the other, each with what is beside it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = False
        """Whether one has come: then there is nothing more."""
        self._stops = stops
        self._waiting: list[tuple[str, Beside]] = []

    def more(self, token: tuple[str, Beside]) -> list[tuple[str, Beside]]:
        """What is known, with this token, to stand before any."""
        waiting = self._waiting
        waiting.append(token)
        text = "".join(text for text, _ in waiting)
        found = self._first(text)
        begins = (at for at in range(len(text)) if any(stop.startswith(text[at:]) for stop in self._stops))
        begun = next(begins, len(text))
        if found < len(text) and found <= begun:
            return self.rest()
        known = []
        while waiting and len(waiting[0][0]) <= begun:
            begun -= len(waiting[0][0])
            known.append(waiting.pop(0))
        return known

    def rest(self) -> list[tuple[str, Beside]]:
        """What still waits, where no token comes any more: the last one cut if it has a stop string."""
        text = "".join(text for text, _ in self._waiting)
        left = self._first(text)
        self.found = left < len(text)
        known = []
        for text, beside in self._waiting:
            if left > 0:
                known.append((text[:left], beside))
            left -= len(text)
        self._waiting.clear()
        return known

    def _first(self, text: str) -> int:
        return min((text.index(stop) for stop in self._stops if stop in text), default=len(text))
