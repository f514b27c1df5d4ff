"""Merges: which two tokens become one, in which order; by these every piece of a text falls into its subwords."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from data.corpus import subwords
from data.errors import StoreError
from data.tables import arrow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    Pair = tuple[str, str]

_KNOWN = 1 << 18
"""Pieces whose tokens are kept at most, so that each different one is merged once."""
_NEVER = 1 << 62


class Merges:
    """Pairs of tokens, by `data.corpus.subwords.LETTERS`, the one that is merged first in front.

    A piece begins as its bytes. Of all neighbours in it the pair that stands first among the merges becomes one token,
    of equals the one on the left, and so on until there is no such pair: byte-level BPE (Sennrich, Haddow and Birch,
    "Neural Machine Translation of Rare Words with Subword Units", ACL 2016).
    """

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.pairs = list(pairs)
        self._ranks = {pair: rank for rank, pair in enumerate(self.pairs)}
        self._known: dict[str, list[str]] = {}

    def __reduce__(self) -> tuple[Callable[[list[Pair]], Merges], tuple[list[Pair]]]:
        return Merges, (self.pairs,)  # what is known of pieces is not sent along

    def split(self, piece: str) -> list[str]:
        """The tokens of one piece of a text."""
        found = self._known.get(piece)
        if found is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            found = self._known[piece] = self._merged([*subwords.written(piece)])
        return found

    def _merged(self, tokens: list[str]) -> list[str]:
        ranks = self._ranks
        found = [ranks.get(pair, _NEVER) for pair in pairwise(tokens)]
        while found and (best := min(found)) < _NEVER:
            at = found.index(best)
            tokens[at : at + 2] = [tokens[at] + tokens[at + 1]]
            del found[at]
            if at:
                found[at - 1] = ranks.get((tokens[at - 1], tokens[at]), _NEVER)
            if at < len(found):
                found[at] = ranks.get((tokens[at], tokens[at + 1]), _NEVER)
        return tokens

    def tokens(self, pieces: pa.DictionaryArray) -> tuple[pa.DictionaryArray, NDArray[np.int64]]:
        """The tokens of an array of pieces, and where each piece begins among them and the last one ends, shape
        (pieces + 1,)."""
        import pyarrow as pa

        rows: dict[str, int] = {}
        merged = [self.split(piece) for piece in pieces.dictionary.to_pylist()]
        flat = np.array([rows.setdefault(token, len(rows)) for tokens in merged for token in tokens], np.int32)
        lengths = np.array([*map(len, merged)], np.int64)
        indices = pieces.indices.to_numpy()
        edges = np.zeros(len(indices) + 1, np.int64)
        np.cumsum(lengths[indices], out=edges[1:])
        first = (lengths.cumsum() - lengths)[indices] - edges[:-1]  # from a token's place to that in ``flat``
        taken = flat[np.repeat(first, lengths[indices]) + np.arange(edges[-1])]
        return pa.DictionaryArray.from_arrays(pa.array(taken), pa.array([*rows], pa.string())), edges

    def write(self, path: Path) -> None:
        """One Arrow IPC file with one record batch, ``left: string, right: string``; the same rows, the same bytes."""
        import pyarrow as pa

        schema = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("left", "right")])
        columns = [pa.array([pair[side] for pair in self.pairs], pa.string()) for side in (0, 1)]
        with pa.OSFile(os.fsencode(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch(columns, schema=schema))

    @classmethod
    def read(cls, path: Path, tokens: Sequence[str]) -> Merges:
        """The merges in a file that ``write`` wrote.

        Args:
            path: of the file.
            tokens: of the vocabulary, but for ``<unk>`` and what ends a document: they have to be all bytes and what
                comes of these merges, and nothing else.

        Raises:
            StoreError: no such file, or none that holds the merges of these tokens.
        """
        import pyarrow as pa

        try:
            kinds = [("left", pa.string()), ("right", pa.string())]
            batch = arrow.batch(path, lambda schema: [*zip(schema.names, schema.types, strict=True)] == kinds)
            left, right = (column.to_pylist() for column in batch.columns)
            pairs = list(zip(left, right, strict=True))
            if None in left or None in right or len(set(pairs)) != len(pairs):
                raise ValueError("its pairs lack tokens, or are not distinct")
            made = set(subwords.LETTERS)
            for one, other in pairs:
                if one not in made or other not in made:
                    raise ValueError(f"it merges {one[:40]!r} and {other[:40]!r} before it has made them")
                made.add(one + other)
            if made != set(tokens):
                raise ValueError("what it makes is not what the vocabulary has")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StoreError(f"{path} holds no merges that can be used ({error}): tokenize again") from None
        return cls(pairs)
