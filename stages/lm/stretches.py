"""A long split measured in stretches, by whoever is there, to the same bit as by one who reads it through.

A network needs its state after one token to read the next, and where a stretch begins nobody has been yet. But a
trained network soon forgets (see `stages.lm.side_by_side`). So whoever reads a stretch first reads the chunk before it,
from nothing, and says in which state it began. If that is, to the bit, the one in which the stretch before it ended,
all is what one pass gives; if it is not, the stretch is read again from the right one. A network that forgets nothing
is measured rightly too, and no sooner than by one.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stages.lm.tally import summed

if TYPE_CHECKING:
    from data.tables.tokens import Ids
    from stages.lm.compared import Compared
    from stages.lm.predictor import Predictor, State
    from stages.lm.tally import Sum

Stretch = tuple[int, ...]
"""Where the chunks of a stretch begin, and the last one ends; before them where the chunk before it begins, or, of the
first stretch, where it does itself."""
Chunks = list[tuple["Sum", list["State"]]]
"""What the losses of each chunk add up to, and the states after it."""

LENGTH = 1 << 20
"""Tokens of a stretch at least, but for the last: the chunk that is read before it is an eighth of that."""


def cut(edges: Sequence[int], start: int) -> Iterator[Stretch]:
    """The stretches from one of the ``edges`` of chunks to the last."""
    at = bisect_left(edges, start)
    while at < len(edges) - 1:
        stop = min(bisect_left(edges, edges[at] + LENGTH), len(edges) - 1)
        yield edges[max(at - 1, 0)], *edges[at : stop + 1]
        at = stop


def read(reader: Predictor | Compared, ids: Ids, stretch: Stretch) -> tuple[list[State], Chunks]:
    """The states in which a stretch began, for whoever has not read what is before, and its chunks."""
    states = reader.beginning()
    _read(reader, ids, stretch[:2], states)
    return [*states], _read(reader, ids, stretch[1:], states)


def joined(
    reader: Predictor | Compared,
    ids: Ids,
    stretches: Iterable[Stretch],
    found: Iterable[tuple[list[State], Chunks]],
    states: list[State],
) -> Iterator[Sum]:
    """What the losses of each chunk add up to, in order; in ``states`` stands where the next one begins.

    Args:
        reader: which is measured.
        ids: of the whole table.
        stretches: one behind another.
        found: what `read` gave for each.
        states: where the first of them begins.
    """
    for stretch, (begun, chunks) in zip(stretches, found, strict=True):
        right = chunks if _same(begun, states) else _read(reader, ids, stretch[1:], states)
        for one, after in right:
            states[:] = after
            yield one


def _read(reader: Predictor | Compared, ids: Ids, edges: Sequence[int], states: list[State]) -> Chunks:
    return [
        (one, [*states])
        for start, stop in itertools.pairwise(edges)
        for one in summed(reader.losses(ids[start : stop + 1], states))
    ]


def _same(some: list[State], others: list[State]) -> bool:
    return all(
        np.array_equal(one, other)
        for state, another in zip(some, others, strict=True)
        for one, other in zip(state, another, strict=True)
    )
