"""N-grams, models that only count: what followed the few tokens before."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data.tables.ngrams import NGrams
from data.tables.tokens import END_ID
from stages.lm import metrics
from stages.lm.counts import count, find, key
from stages.lm.smoothing import Smoothed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from data.tables.tokens import Ids
    from stages.lm.predictor import State, Vector

    Rows = npt.NDArray[np.integer[Any]]
    Floats = npt.NDArray[np.float64]
    Lengths = npt.NDArray[np.int64]

ORDER = 5
"""Tokens of an n-gram: four that are known, and the one that follows."""
_CHUNK = 1 << 20
_REMEMBERED = 1 << 22
"""Probabilities of contexts that are kept once they were made: 32 MB. Short contexts come again and again."""


class NGram:
    """A `stages.lm.predictor.Predictor`: n-grams, smoothed as `stages.lm.smoothing` says.

    On the last tenth of Tiny Shakespeare, fitted on the rest, it needs 1.561 nats per character and 7.307 per word;
    interpolated Witten-Bell smoothing, 1.669 and 7.758.

    Its states are one, and that one array: int64 of shape (order - 1,), or (order - 1, columns) for several texts, the
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
            ends: whether `END_ID` ends a document: what stands behind it follows it alone, and nothing before it, and
                the text itself stands behind one. An n-gram that begins with it counts how often it comes in each
                order, for no token stands before it.
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

    def zero_state(self, *columns: int) -> list[State]:
        return [(np.full((len(self.orders) - 1, *columns), -1),)]

    def beginning(self) -> list[State]:
        states = self.zero_state()
        if self.ends:
            self.advance(END_ID, states)
        return states

    def advance(self, id_: int, states: list[State]) -> None:
        [(rows,)] = states
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
        states[0] = (np.array(numbers, np.int64),)

    def advance_columns(self, ids: npt.NDArray[Any], states: list[State]) -> None:
        [(rows,)] = states
        keys = np.zeros(rows.shape, np.int64)
        np.multiply(rows[:-1], self.vocab_size, out=keys[1:])
        keys += ids
        numbers = find(self.table.key, keys)
        if self.ends:
            numbers[1:, ids == END_ID] = -1
        states[0] = (numbers,)

    def readout(self, first: int = 0) -> Callable[[list[State]], Vector]:
        return lambda states: np.log(self.probabilities(states)[first:]).astype(np.float32)

    def readout_columns(self, first: int = 0) -> Callable[[list[State]], Vector]:
        return lambda states: np.log(self.probabilities_columns(states)[:, first:]).astype(np.float32)

    def probabilities(self, states: list[State]) -> Floats:
        """Of each token to come next, (vocab,); they add up to 1."""
        [(rows,)] = states
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

    def probabilities_columns(self, states: list[State]) -> Floats:
        """As ``probabilities``, for several texts: (columns, vocab)."""
        [(rows,)] = states
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

    def found(self, states: list[State]) -> Any:
        """How many tokens the longest context has that something followed, 0 to order - 1: an int, or int64 (columns,)
        for several texts."""
        [(rows,)] = states
        if rows.ndim > 1:
            return ((self._rest[rows] < 1) * np.arange(1, len(rows) + 1)[:, None]).max(axis=0, initial=0)
        rests = self._numbers[2]
        return max((length for length, number in enumerate(rows.tolist(), 1) if rests[number] < 1), default=0)

    def losses(self, ids: npt.NDArray[Any], states: list[State] | None = None) -> Iterator[Vector]:
        states, done = self.beginning() if states is None else states, 0
        for tokens in self.chunks(len(ids) - 1):
            nats, _ = self.read(ids[done : done + tokens + 1], states)
            yield nats
            done += tokens

    def loss(self, ids: npt.NDArray[Any]) -> float:
        return metrics.mean(self.losses(ids))

    def chunks(self, left: int) -> Iterator[int]:
        for done in range(0, left, _CHUNK):
            yield min(left - done, _CHUNK)

    def separate_losses(self, ids: npt.NDArray[Any], lengths: npt.NDArray[np.int64]) -> Vector:
        return self.separate(ids, lengths)[0]

    def windowed_losses(self, ids: npt.NDArray[Any], window: int) -> Iterator[Vector]:
        span = self.windowed_span(window)
        for start in range(0, len(ids) - 1, span):
            nats, _ = self.read(ids[start : start + span + 1], self.zero_state(), window)
            yield nats

    def windowed_span(self, window: int) -> int:
        return max(_CHUNK // window, 1) * window

    def read(self, ids: Ids, states: list[State], window: int = 0) -> tuple[Floats, Lengths]:
        """The negative log-likelihood of each token but the first, nats, and how long the context was that was `found`.

        Args:
            ids: integers of shape (tokens,).
            states: as those of ``losses``.
            window: nothing is known any more at each so many tokens, from the first on; 0 is at none.
        """
        nats, found = np.empty(max(len(ids) - 1, 0)), np.empty(max(len(ids) - 1, 0), np.int64)
        ahead = [*states]
        if len(ids) > 1:
            self.advance(int(ids[0]), ahead)
        for start in range(1, len(ids), _CHUNK):
            here = slice(start - 1, start - 1 + _CHUNK)
            begun = slice(-start % window, None, window) if window else slice(0)
            nats[here], found[here], states[0], ahead[0] = self._read(ids[start : start + _CHUNK], ahead[0], begun)
        return nats, found

    def separate(self, ids: Ids, lengths: Lengths) -> tuple[Floats, Lengths]:
        """As ``read``, of many texts, one behind another: for all tokens but the first of each.

        Args:
            ids: integers of shape (tokens,).
            lengths: tokens of each text, (texts,).
        """
        if not len(ids):
            return np.empty(0), np.empty(0, np.int64)
        lengths = lengths[lengths > 0]
        starts = lengths.cumsum() - lengths
        if self.ends:
            ids, starts = np.insert(ids, starts, END_ID), starts + np.arange(len(starts))
        predicted = np.ones(len(ids), np.bool_)
        predicted[starts] = predicted[starts + int(self.ends)] = False
        nats, found, _, _ = self._read(ids, self.zero_state()[0], starts)
        return nats[predicted], found[predicted]

    def _read(self, tokens: Ids, state: State, begun: slice | Lengths) -> tuple[Floats, Lengths, State, State]:
        """The nats of these tokens, and the contexts found; where the last of them is read, and where the next one.
        Those of ``begun`` are read where nothing was."""
        probabilities, found = np.full(len(tokens), 1 / self.vocab_size), np.zeros(len(tokens), np.int64)
        (rows,), [(before,)], [(after,)] = state, self.zero_state(), self.zero_state()
        contexts: Rows = np.zeros(len(tokens), np.int64)
        for length, order in enumerate(self.table.lengths()):
            numbers = find(self.table.key[order], key(contexts, tokens, self.vocab_size), order.start + 1)
            rest = self._rest[contexts]
            found[rest < 1] = length
            probabilities *= rest
            probabilities += self._own[numbers]
            if length < len(rows):
                if self.ends and length:
                    numbers[tokens == END_ID] = -1
                if length:
                    numbers[begun] = -1
                contexts = np.concatenate((rows[length : length + 1], numbers[:-1]))
                before[length], after[length] = contexts[-1], numbers[-1]
        return -np.log(probabilities), found, (before,), (after,)

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
