"""The index table: a corpus as ids in one memory-mapped Arrow column, and its splits."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.errors import StoreError
from data.tables import arrow

if TYPE_CHECKING:
    from pathlib import Path

    from data.corpus.text import LevelName, Normalizer

Ids = NDArray[np.unsignedinteger]
SPLITS = ("train", "valid", "test")
END_ID = 1
"""Of the token that ends a document, in a table and a vocabulary that have it."""
LONGEST = 1 << 20
"""Tokens of the training split that figures are taken of, at most, or of subwords the pieces (`data.corpus.subwords`):
more would tell little more of a text that is known, and would take longer than to learn it."""
_MOST = {"letter": 2, "bpe": 4}
"""Tokens of a character: a shift and a letter, or bytes. Of other levels it is one."""


@dataclass(frozen=True)
class Split:
    """A contiguous range of the tokens, ``start`` to before ``stop``."""

    start: int
    stop: int
    characters: int
    """Characters (code points) it stands for, or that begin in it; each word counts with the space behind it."""
    unknown: int
    """How many of its tokens are ``<unk>``."""
    spelling: float = 0.0
    """Bits that tell its unknown tokens, but for the first token, from one another: see ``stages.lm.spelling``. It is
    not in tables that were written before it was counted; those serve older models, and are measured no more."""

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def unknown_rate(self) -> float:
        """The share of its tokens that are ``<unk>``, 0 for none."""
        return self.unknown / max(len(self), 1)


@dataclass(frozen=True)
class IndexTable:
    """A tokenized corpus."""

    ids: Ids
    """Shape (tokens,), the smallest unsigned type for the vocabulary; where it was opened from a file, a read-only
    view of the mapped file."""
    splits: Mapping[str, Split]
    """``train``, ``valid`` and ``test``, in this order and without gaps."""
    level: LevelName
    normalizer: Normalizer
    corpus_sha256: str
    vocab_size: int
    ends: bool = False
    """Whether it is of several documents, and behind each stands the token `END_ID`."""
    part: Split | None = None
    """The end of the training split, where that has more than `LONGEST` tokens."""

    def measured(self, name: str) -> Split:
        """What figures are taken of: a split, of the training split its ``part`` if there is one."""
        return self.part if name == "train" and self.part else self.splits[name]

    def split(self, name: str) -> Ids:
        """The ids of one split, a view."""
        split = self.splits[name]
        return self.ids[split.start : split.stop]

    def write(self, path: Path) -> None:
        """One uncompressed Arrow IPC file with one record batch; the ids go from where they lie to the file.

        The schema's metadata holds the other fields as JSON. The same table gives the same bytes.
        """
        import pyarrow as pa

        # One document has the same bytes as before there were several.
        fields = ("level", "normalizer", "corpus_sha256", "vocab_size", *(["ends"] if self.ends else []))
        facts = {name: getattr(self, name) for name in fields} | {
            "splits": {name: asdict(self.splits[name]) for name in SPLITS},
            "part": asdict(self.part) if self.part else None,
        }
        kind = pa.from_numpy_dtype(self.ids.dtype)
        schema = pa.schema(
            [pa.field("id", kind, nullable=False)], metadata={name: json.dumps(fact) for name, fact in facts.items()}
        )
        column = pa.Array.from_buffers(kind, len(self.ids), [None, pa.py_buffer(self.ids)])
        options = pa.ipc.IpcWriteOptions(allow_64bit=True)  # more than 2³¹ - 1 rows
        with pa.OSFile(os.fsencode(path), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
            writer.write_batch(pa.record_batch([column], schema=schema))

    @classmethod
    def open(cls, path: Path) -> IndexTable:
        """Map the table in a file that ``write`` wrote; its ids are read, to see that the vocabulary has them and that
        as many are unknown as it says.

        Raises:
            StoreError: no such file, or none that holds an index table.
        """
        import pyarrow as pa

        try:
            batch = arrow.batch(
                path, lambda schema: schema.names == ["id"] and pa.types.is_unsigned_integer(schema.types[0])
            )
            facts = {name.decode(): json.loads(fact) for name, fact in (batch.schema.metadata or {}).items()}
            splits = {name: Split(**split) for name, split in facts.pop("splits").items()}
            part = facts.pop("part", None)  # not there in tables that were written before it was
            table = cls(
                ids=batch.column("id").to_numpy(zero_copy_only=True),
                splits=splits,
                **facts,
                part=part and Split(**part),
            )
            table._check()
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError, pa.ArrowException) as error:
            raise StoreError(f"{path} is not an index table that can be read ({error}): tokenize again") from None
        return table

    def _check(self) -> None:
        """Raise a `ValueError` where something does not fit the rest."""
        ends = [0, *(split.stop for split in self.splits.values())]
        parts = [(self.part, self.part.start, self.splits["train"].stop)] if self.part else []
        all_fit = all(
            split.start == start <= split.stop == stop
            and all(
                type(count) is int and 0 <= count < 1 << 63 for count in (split.start, split.stop, split.characters)
            )
            and type(split.unknown) is int
            and 0 <= split.unknown <= len(split)
            and 0 <= split.spelling < math.inf
            for split, start, stop in [*zip(self.splits.values(), ends, ends[1:], strict=False), *parts]
        )
        if tuple(self.splits) != SPLITS or ends[-1] != len(self.ids) or not all_fit:
            raise ValueError("its splits do not fit")
        if type(self.vocab_size) is not int or (len(self.ids) and int(self.ids.max()) >= self.vocab_size):
            raise ValueError("it has ids that its vocabulary lacks")
        counted = [*self.splits.values(), *([self.part] if self.part else [])]
        if any(split.unknown != len(split) - np.count_nonzero(self.ids[split.start : split.stop]) for split in counted):
            raise ValueError("other tokens are unknown than it counts")
        if any(
            # And a document has a character, or two, before its end.
            split.characters * _MOST.get(self.level, 1) * (2 if self.ends else 1)
            + self.ends
            + (self.level == "letter")  # a shift may be the last that there is
            < len(split)
            or (self.level in ("char", "letter") and split.characters > len(split))
            for split in counted
        ):
            raise ValueError("it counts other characters than it has")
        if type(self.ends) is not bool or not all(
            type(fact) is str for fact in (self.level, self.normalizer, self.corpus_sha256)
        ):
            raise ValueError("it does not say what it was made from")
