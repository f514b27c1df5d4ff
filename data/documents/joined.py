"""Many documents as one text, one behind another, and the table of where each lies."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.corpus.fetch import rate
from data.documents.columns import Columns, ordered
from data.documents.files import spelt
from data.errors import CorpusError
from data.tables.documents import Documents

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from data.documents.reader import Document
    from data.progress import Progress

logger = logging.getLogger(__name__)

CHUNK = 1 << 18
TEXT, TABLE = "corpus.txt", "documents.arrow"


def join(
    corpus: str,
    documents: Iterable[Document],
    out: Path,
    columns: Columns,
    limit: int,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write ``out/corpus.txt`` and ``out/documents.arrow``.

    Args:
        corpus: its name, for errors.
        documents: in their order, unless a column says another.
        out: a folder.
        columns: of the tables among them.
        limit: the most bytes of all their texts.
        progress: is told the bytes of their texts.

    Returns:
        How many ``documents`` there are, and how many ``empty`` ones were left out.

    Raises:
        CorpusError: one that is no text, none that has any, or more than ``limit`` bytes.
    """
    path, started, told = out / TEXT, time.monotonic(), 0
    with path.open("wb") as text:
        joined = _Joined(corpus, text, limit)
        for document in documents:
            joined.add(document)
            if progress and joined.size - told > CHUNK:
                told = joined.size
                progress(joined.size, 0, f"{len(joined.table):,} documents · {rate(joined.size, started)}")
    table = joined.table
    if not table.names:
        of = f", for all of its {joined.empty:,} documents are empty" if joined.empty else ""
        raise CorpusError(f"corpus {corpus!r} has no text{of}; give one that has")
    if columns.order and joined.rows:
        table = _reordered(path, table, ordered(f"corpus {corpus!r}", joined.orders))
    elif columns != Columns() and not joined.rows:
        logger.warning("%s has no table: download.text_column and download.order_column say nothing of it", corpus)
    if joined.empty:
        logger.warning("%s: documents without text that are left out: %s", corpus, f"{joined.empty:,}")
    table.write(out / TABLE)
    return {"documents": len(table), "empty": joined.empty}


@dataclass
class _Joined:
    """A text that grows by documents, each with a line end behind it where it has none itself."""

    corpus: str
    text: BinaryIO
    limit: int
    table: Documents = field(default_factory=Documents)
    orders: list[Any] = field(default_factory=list)
    """What orders the documents of the table."""
    empty: int = 0
    """Documents that were left out."""
    rows: int = 0
    """Documents, empty ones among them, that were rows."""
    size: int = 0
    """Bytes of the text so far."""
    _read: int = 0
    """And those that were left out again."""

    def add(self, document: Document) -> None:
        """Write a document, or leave it out where it holds nothing but white space."""
        start, digest, last, blank = self.size, hashlib.sha256(), b"", True
        self.rows += document.in_table
        for chunk in document.chunks:
            self.text.write(chunk)
            digest.update(chunk)
            self.size, self._read, last = self.size + len(chunk), self._read + len(chunk), chunk
            blank = blank and not chunk.decode(errors="replace").strip()
            if self._read > self.limit:
                raise CorpusError(
                    f"the documents of {self.corpus!r} have more than the {self.limit:,} bytes that a corpus may have"
                )
        if blank:
            self.empty += 1
            if self.size > start:
                self.text.seek(start)
                self.text.truncate()
            self.size = start
            return
        self.table.add(spelt(document.name), start, self.size - start, digest.digest())
        self.orders.append(document.order)
        if not last.endswith(b"\n"):
            self.text.write(b"\n")
            self.size += 1


def _reordered(path: Path, table: Documents, places: list[int]) -> Documents:
    """Write the text anew, its documents in another order."""
    before = path.with_name(f"{path.name}.part")
    path.rename(before)
    lengths = [after - start for start, after in zip(table.starts, [*table.starts[1:], before.stat().st_size])]  # noqa: B905
    try:
        with before.open("rb") as old, path.open("wb") as new:
            for place in places:
                old.seek(table.starts[place])
                left = lengths[place]
                while left:
                    piece = old.read(min(left, CHUNK))
                    new.write(piece)
                    left -= len(piece)
    finally:
        before.unlink()
    starts = accumulate((lengths[place] for place in places[:-1]), initial=0)
    return table.moved(places, starts)
