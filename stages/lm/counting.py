"""An n-gram that goes on counting what it reads: each token is predicted first, and then counted."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from data.tables.tokens import END_ID

if TYPE_CHECKING:
    from data.tables.tokens import Ids
    from stages.lm.ngram import NGram
    from stages.lm.predictor import State

MOST = 1 << 21
"""New n-grams at most, 0.7 GB with the counts of others; after that, those that are known are counted on."""


class Counting:
    """Counts on top of those of a model, which stays as it is; its discounts, too.

    After a text it says what a model says that was fitted on its own text and then that one, at the discounts of the
    former. N-grams that were left out of a model are new where they come again.

    Args:
        ngram: which counts go on.
    """

    def __init__(self, ngram: NGram) -> None:
        self.ngram = ngram
        table, smoothed = ngram.table, ngram.smoothed
        totals = np.diff(np.append(0, table.count.cumsum(dtype=np.int64))[smoothed.starts])  # of each context
        totals[1:] += table.left[: len(totals) - 1]
        self._base = table.key.data, smoothed.starts.data, table.count.data
        self._totals, self._own, self._rest = totals.data, smoothed.own.data, smoothed.rest.data
        self._discounts = [(0.0, *some) for some in table.discounts]
        self._known = len(table.key)
        self._new: dict[int, int] = {}
        """Key → number of the n-grams that the model lacks, beyond its own."""
        self._counts: dict[int, int] = {}
        """Of n-grams that were counted, by number."""
        self._contexts: dict[int, tuple[int, float]] = {}
        """Of contexts that something followed: the counts of all that did, and what is taken off these."""

    def read(self, ids: Ids, states: list[State]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """As `NGram.read`, and each token but the first is counted, once it was predicted.

        Args:
            ids: integers of shape (tokens,).
            states: as those of `NGram.read`; what one of the two leaves there the other may go on from.
        """
        [(rows,)] = states
        probabilities, found = np.empty(max(len(ids) - 1, 0)), np.empty(max(len(ids) - 1, 0), np.int64)
        last = contexts = [0, *rows.tolist()]
        for at, id_ in enumerate(ids.tolist(), -1):
            numbers = self._find(id_, contexts)
            if at >= 0:
                probabilities[at], found[at] = self._predict(contexts, numbers)
                self._count(id_, contexts, numbers)
            last, contexts = contexts, [0, *numbers[:-1]]
            if id_ == END_ID and self.ngram.ends:
                contexts[2:] = [-1] * len(contexts[2:])
        states[0] = (np.array(last[1:], np.int64),)
        return -np.log(probabilities), found

    def _find(self, id_: int, contexts: list[int]) -> list[int]:
        """The numbers of the n-grams that a token ends, from the shortest on, -1 for those that never came."""
        (keys, starts, _), vocab_size, known, new = self._base, self.ngram.vocab_size, self._known, self._new
        numbers = [-1] * len(contexts)
        for length, context in enumerate(contexts):
            key = context * vocab_size + id_
            number = new.get(key, -1)
            if 0 <= context <= known and number < 0:
                stop = starts[context + 1]
                row = bisect_left(keys, key, starts[context], stop)
                if row < stop and keys[row] == key:
                    number = row + 1
            if number < 0:
                break  # nor did a longer one ever come
            numbers[length] = number
        return numbers

    def _predict(self, contexts: list[int], numbers: list[int]) -> tuple[float, int]:
        """The probability of the token that ends these, and how long the context is that was found."""
        probability, found, changed = 1 / self.ngram.vocab_size, 0, self._contexts
        for length, (context, number) in enumerate(zip(contexts, numbers, strict=True)):
            if context in changed:
                total, taken = changed[context]
                count = self._counted(number)
                taken *= probability
                probability = (taken + count - self._discounts[length][min(count, 3)]) / total
                found = length
            elif context < 0:
                break
            elif context <= self._known:
                rest = self._rest[context]
                probability = probability * rest + self._own[number]
                if rest < 1:
                    found = length
        return probability, found

    def _count(self, id_: int, contexts: list[int], numbers: list[int]) -> None:
        """Count the longest n-gram, and where it is new, one token more that stands before the next shorter one."""
        for length in reversed(range(len(contexts))):
            context, number = contexts[length], numbers[length]
            if context < 0:
                continue
            known = number >= 0
            if not known:
                if len(self._new) >= MOST:
                    return
                numbers[length] = number = self._known + len(self._new) + 1
                self._new[context * self.ngram.vocab_size + id_] = number
            count, discounts = self._counted(number), self._discounts[length]
            total, taken = self._contexts.get(context) or self._unchanged(context)
            more = discounts[min(count + 1, 3)] - discounts[min(count, 3)]
            self._contexts[context] = total + 1, taken + more
            self._counts[number] = count + 1
            if known:
                return

    def _counted(self, number: int) -> int:
        """How often an n-gram was counted."""
        count = self._counts.get(number)
        if count is None:
            count = self._base[2][number - 1] if 0 < number <= self._known else 0
        return count

    def _unchanged(self, context: int) -> tuple[int, float]:
        total = self._totals[context] if context <= self._known else 0
        return total, self._rest[context] * total if total else 0.0
