"""Where each document of a corpus lies in its text: ``documents.arrow``, an Arrow IPC file with one record batch.

| column | |
|---|---|
| `name` | string: of a file its path below the folder, of a row the table's name and the row's number |
| `start` | int64: the first byte of the document in ``corpus.txt`` |
| `bytes` | int64: how many it has, 1 or more; behind them a line end may lie that belongs to none |
| `sha256` | string: of these bytes, 64 hexadecimal digits |

The rows are in the documents' order, which is that of the text.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data.errors import StoreError
from data.tables import arrow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass
class Documents:
    """The documents of a corpus; about 250 bytes of memory for each."""

    names: list[str] = field(default_factory=list)
    starts: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    digests: list[bytes] = field(default_factory=list)
    """SHA-256, 32 bytes each."""

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str, start: int, size: int, sha256: bytes) -> None:
        """One document more."""
        self.names.append(name)
        self.starts.append(start)
        self.sizes.append(size)
        self.digests.append(sha256)

    def moved(self, places: Sequence[int], starts: Iterable[int]) -> Documents:
        """The same documents in the order of ``places``, with other ``starts``."""
        return Documents(
            [self.names[place] for place in places],
            array("q", starts),
            array("q", (self.sizes[place] for place in places)),
            [self.digests[place] for place in places],
        )

    def write(self, path: Path) -> None:
        """The same documents give the same bytes."""
        import pyarrow as pa

        columns = {
            "name": pa.array(self.names, pa.string()),
            "start": pa.array(self.starts, pa.int64()),
            "bytes": pa.array(self.sizes, pa.int64()),
            "sha256": pa.array((digest.hex() for digest in self.digests), pa.string(), size=len(self.digests)),
        }
        arrow.write(path, columns)

    @classmethod
    def read(cls, path: Path) -> Documents:
        """The documents in a file that ``write`` wrote.

        Raises:
            StoreError: no such file, or none that holds documents.
        """
        import pyarrow as pa

        try:
            kinds = [("name", pa.string()), ("start", pa.int64()), ("bytes", pa.int64()), ("sha256", pa.string())]
            batch = arrow.batch(path, lambda schema: [*zip(schema.names, schema.types, strict=True)] == kinds)
            if not batch.num_rows or any(column.null_count for column in batch.columns):
                raise ValueError("it has no documents, or lacks values")
            names, starts, sizes, digests = (column.to_pylist() for column in batch.columns)
            ends = [0, *(start + size for start, size in zip(starts, sizes, strict=True))]
            if min(sizes) < 1 or any(start - end not in (0, 1) for start, end in zip(starts, ends, strict=False)):
                raise ValueError("its documents do not lie one behind another")
            if starts[0] or not all(map(_DIGEST.fullmatch, digests)):
                raise ValueError("it does not begin with the text, or has digests that are none")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise StoreError(f"{path} is no table of documents that can be read ({error}): download again") from None
        return cls(names, array("q", starts), array("q", sizes), [*map(bytes.fromhex, digests)])

    @property
    def end(self) -> int:
        """Bytes of the text without a line end that belongs to no document."""
        return self.starts[-1] + self.sizes[-1]
