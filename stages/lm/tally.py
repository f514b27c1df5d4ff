"""Long sums of losses that go on where they were interrupted: what is measured so far is kept in a folder.

A sum goes on from a state and a number of tokens, so it is the same to the last bit as one that was not interrupted.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from data.store.files import replace
from data.store.reading import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from stages.lm.layers import State, Vector

    Sum = tuple[tuple[float, ...], int]
    """Of some losses, nats, of whoever read the text, and how many tokens they are."""

LARGEST = 1 << 28
"""Bytes of what is kept: the states of a large model, written out."""
SECONDS = 10.0
"""Between two times that a sum under way is kept: what a killed process has to do again, at most."""


def summed(losses: Iterable[Vector]) -> Iterator[Sum]:
    """Losses in chunks, (tokens,), or (readers, tokens), each as its sum."""
    return (
        (tuple(float(row.sum(dtype=np.float64)) for row in np.atleast_2d(chunk)), chunk.shape[-1]) for chunk in losses
    )


class Tally:
    """The sums of one evaluation.

    Args:
        folder: theirs alone; made when there is something to keep.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "tally.json"
        self._sums: dict[str, dict[str, Any]] = _read(self._file)

    def means(
        self,
        name: str,
        sums: Callable[[int, list[State]], Iterable[Sum]],
        states: list[State],
        progress: Callable[[int], None],
        *,
        every: int = 1,
    ) -> tuple[float, ...]:
        """The mean of the losses of each reader, nats.

        Args:
            name: of the sum, another one for each.
            sums: ``sums(done, states)`` gives those of the losses that follow the first ``done``, and leaves in
                ``states`` where the next one begins.
            states: before the first.
            progress: called with how many are done.
            every: it can go on only after a multiple of so many.
        """
        before = self._sums.get(name)
        if before is None or not (before["ended"] or _alike(before["states"], states)):
            before = {"nats": [], "tokens": 0, "states": _lists(states), "ended": False}
        nats, tokens = tuple(before["nats"]), before["tokens"]
        if not before["ended"]:
            states = [
                tuple(np.array(values, array.dtype) for values, array in zip(lists, state, strict=True))
                for lists, state in zip(before["states"], states, strict=True)
            ]
            kept, due = (nats, tokens, [*states]), time.monotonic() + SECONDS
            try:
                for more, number in sums(tokens, states):
                    nats = tuple(one + other for one, other in zip(nats, more, strict=True)) if nats else more
                    tokens += number
                    if tokens % every == 0:
                        kept = nats, tokens, [*states]
                        if time.monotonic() > due:
                            self._keep(name, *kept)
                            due = time.monotonic() + SECONDS
                    progress(tokens)
            except BaseException:
                self._keep(name, *kept)
                raise
            self._keep(name, nats, tokens, [], ended=True)
        return tuple(sum_ / tokens for sum_ in nats)

    def _keep(
        self, name: str, nats: tuple[float, ...], tokens: int, states: list[State], *, ended: bool = False
    ) -> None:
        self._sums[name] = {"nats": nats, "tokens": tokens, "states": _lists(states), "ended": ended}
        body = json.dumps(self._sums)
        with suppress(OSError):  # what cannot be kept is measured again, should it come to that
            self._file.parent.mkdir(parents=True, exist_ok=True)
            replace(self._file, f"{_digest(body)}\n{body}".encode())


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """What was kept; nothing where that is missing or damaged."""
    try:
        digest, body = read(file, LARGEST).decode().split("\n", 1)
        sums: dict[str, dict[str, Any]] = json.loads(body) if digest == _digest(body) else {}
        sound = all(
            all(type(nats) is float for nats in one["nats"])
            and type(one["tokens"]) is int
            and one["tokens"] >= 0
            and one["ended"] in (True, False)
            for one in sums.values()
        )
        return sums if sound else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _alike(kept: list[list[list[float]]], states: list[State]) -> bool:
    """Whether what was kept are states like these."""
    try:
        shapes = [[np.array(array, np.float64).shape for array in state] for state in kept]
    except (ValueError, TypeError):
        return False
    return shapes == [[array.shape for array in state] for state in states]


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _lists(states: list[State]) -> list[list[list[float]]]:
    """Numbers as JSON holds them, each exactly."""
    return [[array.tolist() for array in state] for state in states]
