"""What an n-gram model has counted: ``ngrams.arrow``, an Arrow IPC file with one record batch.

| column | |
|---|---|
| `key` | int64: the number of what its first n - 1 tokens are, times the vocabulary, plus its last token |
| `count` | int32: how often it comes; of all but the longest, how many different tokens it follows |
| `left` | int32: what the n-grams that begin with it and are one token longer counted, as far as they were left out |

The n-grams are numbered from 1 in the order of their rows; 0 is the number of no tokens. Those of one token come
first, then those of two, and so on; keys ascend, so that what followed one context stands together. The schema's
metadata holds the other fields as JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from data.errors import StoreError
from data.tables import arrow
from data.tables.tokens import END_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

NGRAMS = "ngrams.arrow"
LARGEST = 1 << 26
"""N-grams of one table at most: 1 GiB."""
LONGEST = 64
"""Tokens of an n-gram at most."""
_COLUMNS = ("key", "count", "left")


@dataclass(frozen=True)
class NGrams:
    """The n-grams of all lengths."""

    key: NDArray[np.int64]
    """Shape (n-grams,), as are the other columns; where they were opened from a file, read-only views of it."""
    count: NDArray[np.int32]
    left: NDArray[np.int32]
    sizes: tuple[int, ...]
    """How many there are of one token, of two, …: some of each."""
    discounts: tuple[tuple[float, float, float], ...]
    """Of each length, what is taken off a count of 1, of 2, and of more."""
    vocab_size: int
    min_count: int
    """N-grams of three and more tokens that came less often were left out."""
    ends: bool
    """Whether `END_ID` ends a document: it is the first or the last token of an n-gram then, or none."""

    def lengths(self) -> Iterator[slice]:
        """The rows of one token, of two, …"""
        edges = np.cumsum((0, *self.sizes)).tolist()
        return (slice(start, stop) for start, stop in pairwise(edges))

    def write(self, path: Path) -> None:
        """The same n-grams give the same bytes."""
        import pyarrow as pa

        names = ("sizes", "discounts", "vocab_size", "min_count", "ends")
        facts = {name: json.dumps(getattr(self, name)) for name in names}
        # Arrays of buffers: what is counted goes from where it lies to the file.
        columns = {
            name: pa.Array.from_buffers(kind, len(self.key), [None, pa.py_buffer(getattr(self, name))])
            for name, kind in zip(_COLUMNS, (pa.int64(), pa.int32(), pa.int32()), strict=True)
        }
        arrow.write(path, columns, facts)

    @classmethod
    def open(cls, path: Path, vocab_size: int) -> NGrams:
        """Map the n-grams in a file that ``write`` wrote; they are read once, to see that they make a model.

        Raises:
            StoreError: no such file, or none that holds n-grams of such a vocabulary.
        """
        import pyarrow as pa

        try:
            kinds = [*zip(_COLUMNS, (pa.int64(), pa.int32(), pa.int32()), strict=True)]
            batch = arrow.batch(path, lambda schema: [*zip(schema.names, schema.types, strict=True)] == kinds)
            facts = {name.decode(): json.loads(fact) for name, fact in (batch.schema.metadata or {}).items()}
            columns = {name: batch.column(name).to_numpy(zero_copy_only=True) for name in _COLUMNS}
            sizes, discounts = tuple(facts.pop("sizes")), tuple(map(tuple, facts.pop("discounts")))
            found = cls(**columns, sizes=sizes, discounts=discounts, **facts)
            found._check(vocab_size)
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError, pa.ArrowException) as error:
            raise StoreError(f"{path} holds no n-grams that can be read ({error}): train again") from None
        return found

    def _check(self, vocab_size: int) -> None:
        """Raise a `ValueError` where something does not fit the rest."""
        if type(self.vocab_size) is not int or self.vocab_size != vocab_size or type(self.ends) is not bool:
            raise ValueError("they are of another vocabulary")
        if type(self.min_count) is not int or self.min_count < 1:
            raise ValueError("it does not say which were left out")
        if not 0 < len(self.sizes) <= LONGEST or not len(self.key) <= LARGEST:
            raise ValueError("there are too many, or none")
        if not all(type(size) is int and size > 0 for size in self.sizes) or sum(self.sizes) != len(self.key):
            raise ValueError("there are others than it says")
        if len(self.discounts) != len(self.sizes) or not all(
            type(discount) is float and 0 < discount <= most
            for some in self.discounts
            for discount, most in zip(some, (1, 2, 3), strict=True)
        ):
            raise ValueError("its discounts give no probabilities")
        if self.count.min() < 0 or self.left.min() < 0:
            raise ValueError("it counts less than none")
        if (self.key[1:] <= self.key[:-1]).any():
            raise ValueError("its n-grams are not in order")
        first, stop = 0, 1  # of the contexts
        for number, rows in enumerate(self.lengths()):
            if not first * vocab_size <= self.key[rows.start] <= self.key[rows.stop - 1] < stop * vocab_size:
                raise ValueError("its n-grams begin with what is none")
            if self.ends and number > 1:
                contexts = self.key[rows] // vocab_size
                if (self.key[contexts - 1] % vocab_size == END_ID).any():
                    raise ValueError("its n-grams go on behind the end of a document")
            first, stop = rows.start + 1, rows.stop + 1
        longest = self.left[len(self.left) - self.sizes[-1] :]
        if longest.any() or (len(self.sizes) > 1 and self.left[: self.sizes[0]].any()):
            raise ValueError("it has left out what there cannot be")
