"""The vocabulary: an Arrow table of tokens and their counts, in which a token's id is its row; of subwords, merges."""

from __future__ import annotations

import itertools
import os
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from data.corpus import letters, subwords
from data.corpus.text import END
from data.errors import StoreError
from data.tables import arrow
from data.tables.merges import Merges
from data.tables.tokens import END_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from data.corpus.level import Level

UNKNOWN = "<unk>"
MERGES = "merges.arrow"
"""Beside the vocabulary of subwords."""


class Vocab:
    """Tokens and how often the text they were fitted on has them. Row 0 is ``<unk>``, its count that of the rest.
    Where the text is of several documents, row 1 is what ends each of them (`data.corpus.text.END`).

    Subwords have ``merges``. They hold every byte, so that nothing is unknown.
    """

    def __init__(self, tokens: Sequence[str], counts: Sequence[int], merges: Merges | None = None) -> None:
        self.tokens = list(tokens)
        self.counts = list(counts)
        self.merges = merges
        self._ids = dict(zip(self.tokens, range(len(self.tokens)), strict=True))

    @classmethod
    def build(
        cls, counts: Mapping[str, int], min_freq: int = 0, ends: int | None = None, *, always: Iterable[str] = ()
    ) -> Vocab:
        """Most frequent first, ties in code-point order; what was seen less than ``min_freq`` times is unknown.

        Args:
            counts: of the tokens.
            min_freq: how often a token is seen at least that is known.
            ends: of how many documents, where the end of one is a token.
            always: tokens that are known, however seldom they are seen.
        """
        seen = {token for token, count in counts.items() if count >= min_freq and token != UNKNOWN}
        counts = {**dict.fromkeys(always, 0), **counts}
        known = sorted(seen.union(always))
        known.sort(key=counts.__getitem__, reverse=True)  # which leaves ties as they stand
        found = [counts[token] for token in known]
        unknown = sum(counts.values()) - sum(found)
        if ends is None:
            return cls([UNKNOWN, *known], [unknown, *found])
        return cls([UNKNOWN, END, *known], [unknown, ends, *found])

    @classmethod
    def merged(cls, counts: Mapping[str, int], merges: Merges, ends: int | None = None) -> Vocab:
        """The vocabulary that merges make of the pieces of a text; in order as above, those that it lacks too."""
        found = dict.fromkeys([*subwords.LETTERS, *map("".join, merges.pairs)], 0)
        for piece, count in counts.items():
            for token in merges.split(piece):
                found[token] += count
        built = cls.build(found, ends=ends)
        return cls(built.tokens, built.counts, merges)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def ends(self) -> bool:
        """Whether it has the token that ends a document."""
        return self.tokens[END_ID : END_ID + 1] == [END]

    @property
    def _first(self) -> int:
        """The row of the first token that stands in a text."""
        return END_ID + 1 if self.ends else 1

    def misfit(self, level: Level) -> str:
        """A token that no text of this level has, cut short and as Python writes it; empty where all fit."""
        return next((repr(token[:40]) for token in self.tokens[self._first :] if not level.has(token)), "")

    @property
    def id_type(self) -> np.dtype[np.unsignedinteger]:
        """The smallest unsigned type that holds every id."""
        return np.min_scalar_type(len(self) - 1)

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """The row of each token; 0 where it is unknown."""
        return [*map(self._ids.get, tokens, itertools.repeat(0))]

    def decode(self, ids: Iterable[int], level: Level) -> str:
        """The text of ids."""
        return level.join(self.tokens[row] for row in ids)

    @cached_property
    def by_code_point(self) -> NDArray[np.unsignedinteger]:
        """For a vocabulary of characters: code point → id. The last entry, 0, stands for all code points from there."""
        codes = [ord(token) for token in self.tokens[self._first :]]
        table = np.zeros(max(codes, default=-1) + 2, self.id_type)
        table[codes] = np.arange(self._first, len(self), dtype=self.id_type)
        return table

    @cached_property
    def by_byte(self) -> bytes:
        """The same for the first 256 code points, where ids are bytes: what `bytes.translate` takes."""
        return self.by_code_point.take(np.arange(256), mode="clip").astype(np.uint8).tobytes()

    @cached_property
    def characters(self) -> NDArray[np.int64]:
        """For a vocabulary of subwords or of letters: id → how many characters begin in the token, shape (tokens,)."""
        begin = subwords.characters if self.merges else _begins
        first = [0 if self.merges else 1, 0][: self._first]  # `<unk>`, and what ends a document
        return np.array([*first, *map(begin, self.tokens[self._first :])], np.int64)

    @cached_property
    def within(self) -> NDArray[np.bool_]:
        """Likewise: id → whether the token begins within a character, shape (tokens,)."""
        return np.array([not subwords.characters(token[:1]) for token in self.tokens], np.bool_)

    def write(self, path: Path) -> None:
        """One Arrow IPC file with one record batch, ``token: string, count: int64``; the same rows, the same bytes.

        Merges are written beside it.
        """
        import pyarrow as pa

        fields = [pa.field("token", pa.string(), nullable=False), pa.field("count", pa.int64(), nullable=False)]
        columns = [pa.array(self.tokens, pa.string()), pa.array(self.counts, pa.int64())]
        batch = pa.record_batch(columns, schema=pa.schema(fields))
        with pa.OSFile(os.fsencode(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        if self.merges:
            self.merges.write(path.with_name(MERGES))

    @classmethod
    def read(cls, path: Path, *, merged: bool = False) -> Vocab:
        """The vocabulary in a file that ``write`` wrote.

        Args:
            path: of the file.
            merged: whether it is one of subwords, whose merges lie beside it.

        Raises:
            StoreError: no such file, or none that holds a vocabulary.
        """
        import pyarrow as pa

        try:
            kinds = [("token", pa.string()), ("count", pa.int64())]
            batch = arrow.batch(path, lambda schema: [*zip(schema.names, schema.types, strict=True)] == kinds)
            tokens, counts = (column.to_pylist() for column in batch.columns)
            if tokens[:1] != [UNKNOWN] or len(set(tokens)) != len(tokens):
                raise ValueError(f"its tokens do not begin with {UNKNOWN} or are not distinct")
            if None in counts or min(counts) < 0:
                raise ValueError("it lacks counts, or has some below zero")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StoreError(f"{path} is not a vocabulary that can be read ({error}): tokenize again") from None
        vocab = cls(tokens, counts)
        if merged:
            vocab.merges = Merges.read(path.with_name(MERGES), tokens[vocab._first :])
        return vocab


def _begins(letter: str) -> bool:
    return letter not in letters.SHIFTS
