"""A text that was read part by part, as a whole: how many tokens come before each part, and where its documents lie."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from data.tables.borders import Borders
from data.tables.tokens import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data.tables.tokens import Split
    from stages.indexing.documents import Order
    from stages.indexing.part import Kept, Numbers


class Whole:
    """What was kept of a text.

    Args:
        kept: of each part.
        order: of its documents, where it has such.
    """

    def __init__(self, kept: Sequence[Kept], order: Order | None) -> None:
        tokens = [one.tokens for one in kept]
        self._order = order
        self._tokens = order.rest(tokens) if order else tokens
        self._documents = [
            one.documents if one.tokens == rest else np.array([rest], np.int64)
            for one, rest in zip(kept, self._tokens, strict=True)
        ]
        self._starts = [*itertools.accumulate(self._tokens, initial=0)]
        self.tokens = self._starts[-1]
        self.characters = sum(one.characters for one in kept)
        """Before they were normalised."""

    @property
    def _each(self) -> Numbers:
        """The tokens of every document; some may have none left."""
        return np.concatenate([np.empty(0, np.int64), *self._documents])

    def before(self, stop: int) -> list[int]:
        """For the parts that begin before a token: how many tokens it is from there, as far as they have so many."""
        return [min(stop - start, had) for start, had in zip(self._starts, self._tokens, strict=False) if start < stop]

    @property
    def columns(self) -> tuple[Sequence[Any], ...]:
        """For each part: the tokens before it, those of its documents that have any, and such documents before it."""
        documents = [some[some > 0] for some in self._documents]
        return self._starts[:-1], documents, [*itertools.accumulate(map(len, documents), initial=0)][:-1]

    def ends(self, documents: Sequence[int]) -> tuple[int, int, int]:
        """Where the splits end that have so many documents."""
        ends = np.concatenate([np.zeros(1, np.int64), self._each.cumsum()])
        train, valid, test = ends[[*itertools.accumulate(documents)]].tolist()
        return train, valid, test

    def ended(self, stop: int) -> int:
        """How many documents end at a token or before it."""
        each = self._each
        return int(np.count_nonzero(each[each > 0].cumsum() <= stop))

    def borders(self, ids: Numbers, splits: Mapping[str, Split]) -> Borders:
        """Where the documents lie among the ids, of which each that has any has so many."""
        assert self._order
        order, each = self._order, self._each
        rows = np.array(order.numbers)[each > 0].tolist()
        first = ids.cumsum() - ids
        begun = [int(first.searchsorted(splits[name].stop)) for name in SPLITS]
        train, valid, test = np.diff(begun, prepend=0).tolist()
        table = order.table
        return Borders(
            [table.names[row] for row in rows],
            first,
            ids,
            np.array([table.starts[row] for row in rows], np.int64),
            np.array([table.sizes[row] for row in rows], np.int64),
            replace(order.found, documents=(train, valid, test), empty=len(each) - len(rows)),
        )
