"""The rows of a table, a text each: JSON lines, CSV, Parquet, Arrow.

Two columns are read, and a part of the rows at a time.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from data.documents import columnar
from data.documents.columns import Columns, Row, lacks
from data.documents.columns import wanted as columns_of
from data.errors import CorpusError

BLOCK = 1 << 24
"""Bytes of CSV that are read at once: a row may have no more. And a line of JSON."""

Kind = Literal["jsonl", "csv", "parquet", "arrow"]
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("jsonl", "ndjson"), "jsonl"),
    "csv": "csv",
    "parquet": "parquet",
    **dict.fromkeys(("arrow", "feather"), "arrow"),
}
"""Suffix → what a table is."""
_PACKED = r"(?:\.(?:gz|bz2|xz|zst))?"
_SUFFIX = re.compile(rf"\.({'|'.join(KINDS)}){_PACKED}$", re.IGNORECASE)


def kind(name: str) -> Kind | None:
    """What a table a file of that name is, packed or not; None where it is none."""
    found = _SUFFIX.search(name)
    return KINDS[found[1].lower()] if found else None


def rows(what: str, of: Kind, path: Path, chunks: Callable[[], Iterator[bytes]], columns: Columns) -> Iterator[Row]:
    """The rows of a table.

    Args:
        what: it is, for errors: ``corpus 'reviews.csv'``.
        of: kind.
        path: where it lies, unpacked.
        chunks: gives its bytes in UTF-8, of JSON lines and CSV, whenever it is called.
        columns: that are read.

    Raises:
        CorpusError: it is damaged, lacks a column, or has a row that is not text.
    """
    import pyarrow as pa

    try:
        if of == "jsonl":
            yield from _of_lines(what, chunks(), columns)
        elif of == "csv":
            yield from _of_csv(what, chunks, columns)
        else:
            yield from (columnar.parquet if of == "parquet" else columnar.arrow)(what, path, columns)
    except (pa.ArrowMemoryError, MemoryError):
        raise CorpusError(f"{what} takes more memory to read than there is; write it in smaller parts") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        why = " ".join(str(error).split())
        if "straddling" in why:  # from one block into the next but one
            raise CorpusError(
                f"{what} has a row of more than the {BLOCK:,} bytes that a row may have, or a quotation mark that "
                "nothing closes; correct it"
            ) from None
        raise CorpusError(f"{what} is no table that can be read ({why:.200}); get it again") from None


# --- lines of JSON


def _of_lines(what: str, chunks: Iterator[bytes], columns: Columns) -> Iterator[Row]:
    first = True
    for number, line in enumerate(_lines(what, chunks), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{what} has a line {number:,} that is no JSON ({error!s:.80}); correct it") from None
        if not isinstance(row, dict):
            raise CorpusError(f"{what} has a line {number:,} that is no object with named columns; correct it")
        if first:
            for column, field in ((columns.text, "text_column"), (columns.order, "order_column")):
                if column and column not in row:
                    lacks(what, column, field, row)
            first = False
        text = row.get(columns.text)
        if text is not None and not isinstance(text, str):
            raise CorpusError(
                f"{what} has in row {number:,} no text in the column {columns.text!r} but {json.dumps(text)[:40]}; "
                "correct it, or name another column by download.text_column"
            )
        try:
            content = (text or "").encode()
        except UnicodeEncodeError:
            raise CorpusError(
                f"{what} has in row {number:,} half of a pair of \\u escapes, which is no text; correct it"
            ) from None
        order = row.get(columns.order) if columns.order else None
        if isinstance(order, (dict, list)):
            raise CorpusError(f"{what} has in row {number:,} nothing in {columns.order!r} that rows can be ordered by")
        yield Row(number, content, order)


def _lines(what: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    begun = b""
    number = 0
    for chunk in chunks:
        *whole, begun = (begun + chunk).split(b"\n")
        yield from whole
        number += len(whole)
        if len(begun) > BLOCK:
            raise CorpusError(f"{what} has a line {number + 1:,} of more than the {BLOCK:,} bytes that a row may have")
    yield begun


# --- CSV


class _Stream(io.RawIOBase):
    """Chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks, self._left = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = chunk
        piece = self._left[: len(buffer)]
        buffer[: len(piece)] = piece
        self._left = self._left[len(piece) :]
        return len(piece)


def _file(chunks: Iterator[bytes]) -> io.BufferedReader:
    """One that reads as much as it is asked for."""
    return io.BufferedReader(_Stream(chunks))


def _of_csv(what: str, chunks: Callable[[], Iterator[bytes]], columns: Columns) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow import csv

    read = csv.ReadOptions(use_threads=False, block_size=BLOCK)
    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(_file(chunks()), read, parse) as reader:
        names = reader.schema.names
    wanted = columns_of(what, columns, names)
    convert = csv.ConvertOptions(
        include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
    )
    number = 0
    with csv.open_csv(_file(chunks()), read, parse, convert) as reader:
        for batch in reader:
            texts = batch.column(0).view(pa.binary())
            orders = batch.column(1).to_pylist() if columns.order else [None] * len(texts)
            for text, order in zip(texts, orders, strict=True):
                number += 1
                yield Row(number, text.as_py(), order or None)
