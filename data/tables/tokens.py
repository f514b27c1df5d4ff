"""The index table: a corpus as ids in one memory-mapped Arrow column, its splits, and minibatches over them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import NDArray

from data.errors import CorpusError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from data.corpus.text import LevelName, Normalizer

Ids = NDArray[np.unsignedinteger]
Minibatch = tuple[NDArray[np.int32], NDArray[np.int32]]
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """A contiguous part of the tokens, ``start`` to before ``stop``."""

    start: int
    stop: int
    characters: int
    """Characters (code points) it stands for; each word counts with the space behind it."""
    unknown: int
    """How many of its tokens are ``<unk>``."""

    def __len__(self) -> int:
        return self.stop - self.start


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

    def split(self, name: str) -> Ids:
        """The ids of one split, a view."""
        part = self.splits[name]
        return self.ids[part.start : part.stop]

    def write(self, path: Path) -> None:
        """One uncompressed Arrow IPC file with one record batch; the ids go from where they lie to the file.

        The schema's metadata holds the other fields as JSON. The same table gives the same bytes.
        """
        import pyarrow as pa

        fields = ("level", "normalizer", "corpus_sha256", "vocab_size")
        facts = {name: getattr(self, name) for name in fields} | {
            "splits": {name: asdict(self.splits[name]) for name in SPLITS}
        }
        kind = pa.from_numpy_dtype(self.ids.dtype)
        schema = pa.schema(
            [pa.field("id", kind, nullable=False)], metadata={name: json.dumps(fact) for name, fact in facts.items()}
        )
        column = pa.Array.from_buffers(kind, len(self.ids), [None, pa.py_buffer(self.ids)])
        options = pa.ipc.IpcWriteOptions(allow_64bit=True)  # more than 2³¹ - 1 rows
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
            writer.write_batch(pa.record_batch([column], schema=schema))

    @classmethod
    def open(cls, path: Path) -> IndexTable:
        """Map the table in a file that ``write`` wrote; nothing is read until it is used.

        Raises:
            StoreError: no such file, or none that holds an index table.
        """
        import pyarrow as pa

        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            facts = {name.decode(): json.loads(fact) for name, fact in (reader.schema.metadata or {}).items()}
            splits = {name: Split(**split) for name, split in facts.pop("splits").items()}
            batch = reader.get_batch(0)  # several could give no single view; the last split's end tells
            batch.validate()
            table = cls(ids=batch.column("id").to_numpy(zero_copy_only=True), splits=splits, **facts)
            if tuple(splits) != SPLITS or splits["test"].stop != len(table.ids) or table.ids.dtype.kind != "u":
                raise ValueError("its splits or ids do not fit")
        except (OSError, KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
            raise StoreError(f"{path} is not an index table that can be read ({error}): tokenize again") from None
        return table


class Minibatches(Sequence[Minibatch]):
    """One epoch over a split: ``self[i]`` is ``(inputs, targets)``, the targets one token ahead of the inputs.

    Both are int32 of shape (batch_size, num_steps), contiguous, and fresh each time. As in the book (d2l, "Language
    Models and the Dataset"), an epoch begins at a random offset of 0 to ``num_steps`` tokens. ``sequential``: row r of
    minibatch i + 1 goes on where row r of minibatch i ended. ``random``: the split is cut into subsequences of
    ``num_steps`` tokens, and these are shuffled.

    Other than in the book, the ends of the rows are not dropped: the last sequential minibatch has as many steps as are
    left, fewer than ``num_steps`` if need be. The rows of all epochs end near the same places, so that the book's model
    hardly ever sees a tenth of its 10,000 characters.

    All that is random happens here and now: the same state of ``rng`` gives the same epoch, any minibatch of it first.

    Raises:
        CorpusError: a split so short that some offset would leave no minibatch.
    """

    def __init__(
        self,
        ids: Ids,
        batch_size: int,
        num_steps: int,
        partition: Literal["sequential", "random"],
        rng: np.random.Generator,
    ) -> None:
        check_length(len(ids), batch_size, num_steps, partition)
        self._ids = ids
        self._num_steps = num_steps
        offset = int(rng.integers(num_steps, endpoint=True))
        left = len(ids) - offset - 1  # the last token is only ever a target
        if partition == "random":
            starts = rng.permutation(left // num_steps) * num_steps
            starts = starts[: len(starts) // batch_size * batch_size].reshape(-1, batch_size)
            row = len(starts) * num_steps
        else:
            row = left // batch_size
            starts = np.arange(0, row, num_steps)[:, None] + np.arange(batch_size) * row
        self._starts = offset + starts  # where each sequence begins, of shape (minibatches, batch_size)
        self._last_steps = row - (len(starts) - 1) * num_steps

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Minibatch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Minibatch]: ...
    def __getitem__(self, index: int | slice) -> Minibatch | list[Minibatch]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        steps = self._last_steps if index in (-1, len(self) - 1) else self._num_steps
        sequences = self._ids[self._starts[index][:, None] + np.arange(steps + 1)].astype(np.int32)
        return np.ascontiguousarray(sequences[:, :-1]), np.ascontiguousarray(sequences[:, 1:])


def check_length(tokens: int, batch_size: int, num_steps: int, partition: Literal["sequential", "random"]) -> None:
    """Refuse a split in which the largest offset, ``num_steps``, would leave no minibatch.

    Raises:
        CorpusError: what would fit, in one sentence.
    """
    if partition == "sequential":  # rows of a single step will do
        needed = batch_size + num_steps + 1
        most_sequences, most_steps, most_steps_alone = tokens - num_steps - 1, tokens - batch_size - 1, tokens - 2
    else:
        needed = batch_size * num_steps + num_steps + 1
        most_sequences = (tokens - 1) // num_steps - 1  # behind the largest offset
        most_steps, most_steps_alone = (tokens - 1) // (batch_size + 1), (tokens - 1) // 2
    if tokens >= needed:
        return
    choices = [
        f"{field} to at most {most}"
        for field, most in (("train.batch_size", most_sequences), ("train.num_steps", most_steps))
        if most >= 1
    ]
    if choices:
        remedy = f"set {' or '.join(choices)}, or use a longer text"
    elif most_steps_alone >= 1:
        remedy = f"set train.batch_size=1 and train.num_steps to at most {most_steps_alone}, or use a longer text"
    else:
        remedy = "the text is too short for any, use a longer one"
    raise CorpusError(
        f"the training split has {tokens:,} tokens, and {partition} minibatches of {batch_size:,} × {num_steps:,} "
        f"(train.batch_size × train.num_steps) need {needed:,}: {remedy}"
    )
