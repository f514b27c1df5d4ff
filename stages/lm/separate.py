"""The losses of many texts, each read from its beginning, side by side: to the last bit what each is in other company.

A matrix times many columns costs a few times as much as that matrix times one vector. So a number of columns that never
changes is read at once, each of which reads one text behind another; the longest ones are dealt out first, so that all
end at nearly the same step.

In a product of one shape a column does not depend on what stands beside it, but it may on where it stands: OpenBLAS for
processors with AVX2 adds up the first and the last eight columns in another order than those between. So it is found
out which columns come to the same, given the same, and texts are dealt out to these only.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from stages.lm.layers import State, Vector

    Counts = npt.NDArray[np.int64]

COLUMNS = 128
"""Read at once."""
_TRIED = 32
"""Steps, each from a state of its own, after which columns that were the same in all of them are taken to be alike."""
_COMPARED = 1 << 12
"""Logits of a column that are compared, or more."""

Advance = Callable[[npt.NDArray[Any], list["State"]], None]
Logits = Callable[["Vector"], "Vector"]
Nats = Callable[["Vector", npt.NDArray[Any]], "Vector"]


class Columns:
    """Columns in which a text comes to the same, whichever of them reads it.

    Args:
        advance: reads ids (columns,), and puts the next states in the place of those of the layers, (hidden, columns).
        logits: from outputs (hidden, columns) to logits (vocab, columns).
        nats: from outputs and targets (columns,) to losses (columns,).
        beginning: of the layers, (hidden,), where a text begins.
    """

    def __init__(self, advance: Advance, logits: Logits, nats: Nats, beginning: list[State]) -> None:
        self._advance, self._nats = advance, nats
        self._beginning = [tuple(array[:, None] for array in state) for state in beginning]
        self._alike = self._tried(logits)

    def losses(self, ids: npt.NDArray[Any], lengths: Counts) -> Vector:
        """The loss of each token but the first of each text, nats, in the order of the texts.

        Args:
            ids: of the texts, one behind another, (tokens,).
            lengths: tokens of each, (texts,).
        """
        predicted = np.maximum(lengths - 1, 0)
        column, start = self._dealt(predicted)
        within = np.arange(predicted.sum()) - np.repeat(predicted.cumsum() - predicted, predicted)
        read = np.repeat(lengths.cumsum() - lengths, predicted) + within
        place = np.repeat(start, predicted) + within, np.repeat(column, predicted)
        shape = int(place[0].max(initial=-1)) + 1, COLUMNS
        inputs, targets, begins = np.zeros(shape, ids.dtype), np.zeros(shape, ids.dtype), np.zeros(shape, np.bool_)
        inputs[place], targets[place] = ids[read], ids[read + 1]
        begins[start[predicted > 0], column[predicted > 0]] = True
        states, result = self._repeated(self._beginning), np.empty(shape, np.float32)
        for step, begun in enumerate(begins):
            if begun.any():
                states = [
                    tuple(np.where(begun, first, array) for first, array in zip(*pair, strict=True))
                    for pair in zip(self._beginning, states, strict=True)
                ]
            self._advance(inputs[step], states)
            result[step] = self._nats(states[-1][0], targets[step])
        found: Vector = result[place]
        return found

    def _dealt(self, predicted: Counts) -> tuple[Counts, Counts]:
        """For each text the column that reads it, and the step at which that begins: the one that is free first."""
        column, start = np.zeros(len(predicted), np.int64), np.zeros(len(predicted), np.int64)
        free = [(0, number) for number in self._alike]
        for text in np.argsort(-predicted, kind="stable").tolist():
            start[text], column[text] = step, number = free[0]
            heapq.heapreplace(free, (step + int(predicted[text]), number))
        return column, start

    def _tried(self, logits: Logits) -> list[int]:
        """The columns in which the same states and tokens came to the same, of several such groups the largest."""
        drawn = np.random.default_rng(0)
        said, ids, compared = [0] * COLUMNS, np.zeros(COLUMNS, np.uint8), 0

        def tried(arrays: Iterable[Vector]) -> None:
            said[:] = map(hash, zip(said, *map(_columns, arrays), strict=True))

        for _ in range(_TRIED):
            states = self._repeated([tuple(_drawn(drawn, array) for array in state) for state in self._beginning])
            self._advance(ids, states)
            tried(itertools.chain.from_iterable(states))
        while compared < _COMPARED:
            found = logits(np.repeat(_drawn(drawn, self._beginning[-1][0]), COLUMNS, axis=1))
            tried([found])
            compared += len(found)
        alike: dict[int, list[int]] = {}
        for column, one in enumerate(said):
            alike.setdefault(one, []).append(column)
        return max(alike.values(), key=len)

    def _repeated(self, states: list[State]) -> list[State]:
        return [tuple(np.repeat(array, COLUMNS, axis=1) for array in state) for state in states]


def _drawn(drawn: np.random.Generator, like: Vector) -> Vector:
    return drawn.uniform(-1, 1, like.shape).astype(np.float32)


def _columns(array: Vector) -> list[bytes]:
    return [column.tobytes() for column in array.T]
