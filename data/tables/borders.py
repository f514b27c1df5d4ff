"""Where each document of a corpus lies among its tokens: ``documents.arrow``, an Arrow IPC file with one record batch.

| column | |
|---|---|
| `name` | string: as the download has it |
| `first` | int64: its first token in ``tokens.arrow`` |
| `tokens` | int64: how many it has, 1 or more, with the one that ends it where there are such |
| `start` | int64: the first byte of the document in ``corpus.txt`` |
| `bytes` | int64: how many it has |

The rows are in the order of the tokens, without gaps. The schema's metadata holds `Found` as JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.errors import StoreError
from data.tables import arrow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

DOCUMENTS = "documents.arrow"
"""Beside the tokens of several documents."""
_COLUMNS = ("first", "tokens", "start", "bytes")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found of the documents as they were divided."""

    split: str
    """How: `content`, `order` or `position`."""
    documents: tuple[int, int, int]
    """Of the splits; one that is cut counts where it begins."""
    copies: int = 0
    """Documents of which one like them, to the byte, came before."""
    empty: int = 0
    """Documents of which nothing was left when they were normalised."""
    near: tuple[int, int] | None = None
    """Documents of the validation and of the test split that are much like one of another split before them; None
    where nobody looked."""
    left_out: int = 0
    """Documents of the training split that are much like one of the others, and were left out for that."""


@dataclass(frozen=True)
class Borders:
    """The documents among the tokens."""

    names: Sequence[str]
    first: Numbers
    tokens: Numbers
    start: Numbers
    bytes: Numbers
    found: Found

    def __len__(self) -> int:
        return len(self.names)

    def write(self, path: Path) -> None:
        """The same documents give the same bytes."""
        import pyarrow as pa

        columns: dict[str, pa.Array] = {"name": pa.array(self.names, pa.string())}
        columns |= {name: pa.array(getattr(self, name), pa.int64()) for name in _COLUMNS}
        arrow.write(path, columns, {"found": json.dumps(asdict(self.found))})

    @classmethod
    def read(cls, path: Path) -> Borders:
        """The documents in a file that ``write`` wrote.

        Raises:
            StoreError: no such file, or none that holds documents.
        """
        import pyarrow as pa

        try:
            kinds = [("name", pa.string()), *((name, pa.int64()) for name in _COLUMNS)]
            batch = arrow.batch(path, lambda schema: [*zip(schema.names, schema.types, strict=True)] == kinds)
            if not batch.num_rows or any(column.null_count for column in batch.columns):
                raise ValueError("it has no documents, or lacks values")
            first, tokens, start, size = (column.to_numpy() for column in batch.columns[1:])
            if min(tokens.min(), size.min()) < 1 or start.min() < 0 or (first != tokens.cumsum() - tokens).any():
                raise ValueError("its documents do not lie one behind another")
            found = _found(json.loads(batch.schema.metadata[b"found"]))
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError, pa.ArrowException) as error:
            raise StoreError(f"{path} is no table of documents that can be read ({error}): tokenize again") from None
        return cls(batch.column("name").to_pylist(), first, tokens, start, size, found)


def _found(facts: dict[str, object]) -> Found:
    counts = {name: facts.pop(name) for name in ("documents", "near")}
    found = Found(
        **facts,  # type: ignore[arg-type]
        **{name: tuple(some) if isinstance(some, list) else some for name, some in counts.items()},  # type: ignore[arg-type]
    )
    numbers = [*found.documents, *(found.near or ()), found.copies, found.empty, found.left_out]
    if (
        (len(found.documents), len(found.near or (0, 0))) != (3, 2)
        or found.split not in ("content", "order", "position")
        or not all(type(number) is int and number >= 0 for number in numbers)
    ):
        raise ValueError("it does not say what was found of its documents")
    return found
