"""N-grams, models that only count: how often each token comes, or what followed the few before it."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data.tables.ngrams import NGrams
from data.tables.tokens import END_ID
from stages.lm.counts import count, find, key
from stages.lm.smoothing import Smoothed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from data.tables.tokens import Ids

    Rows = npt.NDArray[np.integer[Any]]
    Keys = npt.NDArray[np.int64]
    Counts = npt.NDArray[np.integer[Any]]
    Floats = npt.NDArray[np.float64]

ORDER = 5
"""Tokens of an n-gram: four that are known, and the one that follows."""
_CHUNK = 1 << 20
_REMEMBERED = 1 << 22
"""Probabilities of contexts that are kept once they were made: 32 MB. Short contexts come again and again."""


def uniform_loss(vocab_size: int) -> float:
    """Nats per token where every token is equally likely."""
    return math.log(vocab_size)


@dataclass(frozen=True)
class Unigram:
    """Each token by how often it comes in the training split, whatever came before."""

    log_probabilities: Floats
    """Of shape (vocab,)."""

    @classmethod
    def fit(cls, ids: Ids, vocab_size: int) -> Unigram:
        """Count the training split, one added to every token so that none is impossible (Laplace)."""
        counts = _count(ids, vocab_size) + 1
        return cls(np.log(counts / counts.sum()))

    def loss(self, ids: Ids) -> float:
        """Mean negative log-likelihood of all these ids, nats per token."""
        counts = _count(ids, len(self.log_probabilities))
        return float(-(counts * self.log_probabilities).sum() / counts.sum())


class NGram:
    """Each token by what followed the few before it: n-grams, smoothed as `stages.lm.smoothing` says.

    On the last tenth of Tiny Shakespeare, fitted on the rest, it needs 1.561 nats per character and 7.307 per word;
    interpolated Witten-Bell smoothing, 1.669 and 7.758.

    What was read is known by ``rows``, int64 of shape (order - 1,), or (order - 1, columns) for several texts: the
    numbers that the last token, the last two, … have as n-grams, or -1 where they never came.
    """

    def __init__(self, table: NGrams) -> None:
        self.vocab_size, self.ends = table.vocab_size, table.ends
        self.orders = table.sizes
        """How many n-grams there are of one token, of two, …; of as many orders as there are."""
        self.table, self.smoothed = table, Smoothed(table)
        self._own, self._rest, self._starts = self.smoothed.own, self.smoothed.rest, self.smoothed.starts
        self._remembered: dict[int, Floats] = {}

    @classmethod
    def fit(cls, ids: Ids, vocab_size: int, order: int = ORDER, *, ends: bool = False, min_count: int = 1) -> NGram:
        """Count the n-grams of a text up to an order; not across its ends.

        It takes up to 25 bytes per token and 50 per n-gram, measured on 10 MB of characters and 10 million words. An
        n-gram takes 16 in its file, 20 more at most in a model, and 8 once it is asked what may follow. A million
        characters have one million n-grams of up to eight.

        Args:
            ids: integers of shape (tokens,).
            vocab_size: above all ids.
            order: tokens of the longest n-grams; there are fewer orders where the text has none so long.
            ends: whether `END_ID` ends a document: what stands behind it follows it alone, and nothing before it. An
                n-gram that begins with it counts how often it comes in each order, for no token stands before it.
            min_count: n-grams of three and more tokens that come less often are left out. What they had goes to the
                shorter context; of n-grams that stay, all parts stay too.

        Raises:
            ConfigError: an order that is out of bounds, or more n-grams than a table holds.
        """
        return cls(count(ids, vocab_size, order, ends, min_count))

    def counting(self, ids: Ids, order: int) -> NGram:
        """Another one, of the same vocabulary and likewise, of another text."""
        return NGram.fit(ids, self.vocab_size, order, ends=self.ends, min_count=self.table.min_count)

    def write(self, path: Path) -> None:
        """All that was counted, as `data.tables.ngrams` has it."""
        self.table.write(path)

    @classmethod
    def open(cls, path: Path, vocab_size: int) -> NGram:
        """What ``write`` wrote: its probabilities are the same to the last bit.

        Raises:
            StoreError: no such file, or none that holds n-grams of such a vocabulary.
        """
        return cls(NGrams.open(path, vocab_size))

    def zero_state(self, *columns: int) -> Rows:
        """Where nothing was read."""
        return np.full((len(self.orders) - 1, *columns), -1)

    def advance(self, id_: int, rows: Rows) -> Rows:
        """Read one token; ``rows`` stay as they are."""
        keys, starts, _ = self._numbers
        numbers, context = [-1] * len(rows), 0
        for length, longer in enumerate(rows.tolist()):
            wanted, stop = context * self.vocab_size + id_, starts[context + 1]
            found = bisect_left(keys, wanted, starts[context], stop)
            if found == stop or keys[found] != wanted:
                break  # nor did what ends with it ever come
            numbers[length] = found + 1
            if longer < 0 or (id_ == END_ID and self.ends):
                break
            context = longer
        return np.array(numbers, np.int64)

    def advance_columns(self, ids: Ids, rows: Rows) -> Rows:
        """Read one token of each of several texts, (columns,)."""
        keys = np.zeros(rows.shape, np.int64)
        np.multiply(rows[:-1], self.vocab_size, out=keys[1:])
        keys += ids
        numbers = find(self.table.key, keys)
        if self.ends:
            numbers[1:, ids == END_ID] = -1
        return numbers

    def probabilities(self, rows: Rows) -> Floats:
        """Of each token to come next, (vocab,); they add up to 1."""
        tokens, own, (_, starts, rests) = self._tokens, self._own, self._numbers
        remembered, most = self._remembered, _REMEMBERED // self.vocab_size
        result = self._first
        for number in rows.tolist():
            if number in remembered:
                result = remembered[number]
                continue
            if number < 0:
                break
            start, stop = starts[number], starts[number + 1]
            if start == stop:
                continue
            result = result * rests[number]
            if stop - start == 1:
                result[tokens.item(start)] += own.item(stop)
            else:
                result[tokens[start:stop]] += own[start + 1 : stop + 1]
            if number <= most:
                remembered[number] = result
        return result.copy()

    def probabilities_columns(self, rows: Rows) -> Floats:
        """As ``probabilities``, for several texts: (columns, vocab)."""
        columns = rows.shape[1]
        probabilities = np.repeat(self._first[None], columns, axis=0)
        starts, rests = self._starts[rows], self._rest[rows][:, :, None]
        lengths = self._starts[1:][rows] - starts
        stops = lengths.sum(axis=1).cumsum().tolist()
        # The followers of all contexts, one behind another.
        contexts = np.arange(lengths.size).repeat(lengths.reshape(-1))
        shifts = starts.reshape(-1) - lengths.cumsum() + lengths.reshape(-1)
        followers = np.arange(len(contexts)) + shifts[contexts]
        places = (np.zeros_like(rows) + np.arange(columns) * self.vocab_size).reshape(-1)[contexts]
        places += self._tokens[followers]
        own = self._own[1:][followers]
        for length, (start, stop) in enumerate(pairwise((0, *stops))):
            if start < stop:
                probabilities *= rests[length]
                probabilities.reshape(-1)[places[start:stop]] += own[start:stop]
        return probabilities

    def found(self, rows: Rows) -> Any:
        """How many tokens the longest context has that something followed, 0 to order - 1: an int, or int64 (columns,)
        for several texts."""
        if rows.ndim > 1:
            return ((self._rest[rows] < 1) * np.arange(1, len(rows) + 1)[:, None]).max(axis=0, initial=0)
        rests = self._numbers[2]
        return max((length for length, number in enumerate(rows.tolist(), 1) if rests[number] < 1), default=0)

    def read(self, ids: Ids, rows: Rows, window: int = 0) -> tuple[Floats, npt.NDArray[np.int64], Rows]:
        """The negative log-likelihood of each token but the first, nats; how long the context was that was `found`; and
        where the last token is to be read: with it ``ids[:n]`` and then ``ids[n - 1:]`` give what ``ids`` gives.

        Args:
            ids: integers of shape (tokens,).
            rows: where the first token is read.
            window: nothing is known any more at each so many tokens, from the first on; 0 is at none.
        """
        nats, found = np.empty(max(len(ids) - 1, 0)), np.empty(max(len(ids) - 1, 0), np.int64)
        after = self.advance(int(ids[0]), rows) if len(ids) > 1 else rows
        for start in range(1, len(ids), _CHUNK):
            here = slice(start - 1, start - 1 + _CHUNK)
            begun = slice(-start % window, None, window) if window else slice(0)
            read = self._read(ids[start : start + _CHUNK], after, np.float64, begun)
            nats[here], found[here], rows, after = read
        return nats, found, rows

    def losses(self, ids: Ids) -> Iterator[Floats]:
        """The negative log-likelihood of each token but the first, nats, in chunks.

        What comes before these ids is unknown: the second token has a context of one. Parts of probabilities are
        rounded to 32 bits, as they are in all baselines that were ever written.
        """
        after = self.advance(int(ids[0]), self.zero_state()) if len(ids) > 1 else self.zero_state()
        for start in range(1, len(ids), _CHUNK):
            nats, _, _, after = self._read(ids[start : start + _CHUNK], after, np.float32)
            yield nats

    def _read(
        self, tokens: Ids, rows: Rows, kind: type[np.floating[Any]], begun: slice = slice(0)
    ) -> tuple[Floats, npt.NDArray[np.int64], Rows, Rows]:
        """The nats of these tokens, and the contexts found; where the last of them is read, and where the next one.
        Those of ``begun`` are read where nothing was."""
        probabilities, found = np.full(len(tokens), 1 / self.vocab_size), np.zeros(len(tokens), np.int64)
        before, after = self.zero_state(), self.zero_state()
        contexts: Rows = np.zeros(len(tokens), np.int64)
        for length, order in enumerate(self.table.lengths()):
            numbers = find(self.table.key[order], key(contexts, tokens, self.vocab_size), order.start + 1)
            rest = self._rest[contexts]
            found[rest < 1] = length
            probabilities *= rest.astype(kind)
            probabilities += self._own[numbers].astype(kind)
            if length < len(rows):
                if self.ends and length:
                    numbers[tokens == END_ID] = -1
                if length:
                    numbers[begun] = -1
                contexts = np.concatenate((rows[length : length + 1], numbers[:-1]))
                before[length], after[length] = contexts[-1], numbers[-1]
        return -np.log(probabilities), found, before, after

    def loss(self, ids: Ids, progress: Callable[[int], None] | None = None) -> float:
        """The mean of ``losses``, nats per token; ``progress`` is called with how many tokens are done."""
        total, tokens = 0.0, 0
        for chunk in self.losses(ids):
            total += float(chunk.sum())
            tokens += len(chunk)
            if progress:
                progress(tokens)
        return total / tokens if tokens else math.nan

    @cached_property
    def _numbers(self) -> tuple[memoryview, memoryview, memoryview]:
        """Keys, starts and rests, to take one of them: quicker so than from an array."""
        return self.table.key.data, self._starts.data, self._rest.data

    @cached_property
    def _tokens(self) -> npt.NDArray[np.int64]:
        """The last token of each n-gram, made once what may follow is asked for."""
        return self.table.key % self.vocab_size

    @cached_property
    def _first(self) -> Floats:
        """The probabilities where nothing is known of what was read."""
        probabilities = np.full(self.vocab_size, 1 / self.vocab_size)
        probabilities *= self._rest[0]
        probabilities[self.table.key[: self.orders[0]]] += self._own[1 : self.orders[0] + 1]
        return probabilities


def _count(ids: Ids, vocab_size: int) -> Counts:
    """How often each id comes; in chunks, because counting widens a chunk to 64 bits and the table may be large."""
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, len(ids), _CHUNK):
        counts += np.bincount(ids[start : start + _CHUNK], minlength=vocab_size)
    return counts
