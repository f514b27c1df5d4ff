"""The rows of a table that lies by columns, Parquet or Arrow: two columns, and a part of their rows at a time."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.documents.columns import Columns, Row, wanted
from data.errors import CorpusError
from data.tables.message import Message

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1000
"""Rows of Parquet that are read at once. Of a row group, however large, that and a page of each column are in memory; a
page has two gigabytes at most."""
BATCH = 1 << 30
"""Bytes that a record batch of Arrow may unpack to; one that is not compressed stays in the file, which is mapped."""


def parquet(what: str, path: Path, columns: Columns) -> Iterator[Row]:
    """The rows of a file of Parquet.

    Raises:
        CorpusError: it lacks a column, or has no text in it.
        pyarrow.ArrowException, OSError: it cannot be read.
    """
    return _rows(what, _parquet(what, path, columns))


def arrow(what: str, path: Path, columns: Columns) -> Iterator[Row]:
    """The rows of a file or a stream of Arrow. Arguments and errors are `parquet`'s, and ValueError."""
    return _rows(what, _ipc(what, path, columns))


def _rows(what: str, columns: Iterator[tuple[pa.Array, pa.Array | None]]) -> Iterator[Row]:
    """Rows of columns: the texts as bytes or as indices into bytes, and what orders them."""
    import pyarrow as pa

    number = 0
    for texts, orders in columns:
        values = _orderable(what, orders) if orders is not None else [None] * len(texts)
        several = texts.dictionary if isinstance(texts, pa.DictionaryArray) else texts
        places = texts.indices.to_pylist() if isinstance(texts, pa.DictionaryArray) else range(len(texts))
        for place, order in zip(places, values, strict=True):
            number += 1
            text = several[place].as_py() if place is not None else None
            yield Row(number, text or b"", order)


def _orderable(what: str, orders: pa.Array) -> list[Any]:
    import pyarrow as pa
    import pyarrow.types as kinds

    of = orders.type
    if kinds.is_timestamp(of) or kinds.is_date(of):
        return list(orders.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_pylist())
    if kinds.is_time(of) or kinds.is_duration(of):
        return list(orders.cast(pa.int32() if of.bit_width == 32 else pa.int64()).to_pylist())
    if not (kinds.is_integer(of) or kinds.is_floating(of) or kinds.is_decimal(of) or _is_text(of)):
        raise CorpusError(f"{what} has values of the kind {of} where rows are to be ordered by them: name another")
    return list(orders.to_pylist())


def _is_text(of: pa.DataType) -> bool:
    import pyarrow.types as kinds

    if kinds.is_dictionary(of):
        return _is_text(of.value_type)
    return bool(kinds.is_string(of) or kinds.is_large_string(of) or kinds.is_string_view(of))


def _check_kind(what: str, columns: Columns, of: pa.DataType) -> None:
    import pyarrow.types as kinds

    if not (_is_text(of) or kinds.is_null(of)):
        raise CorpusError(
            f"{what} has in the column {columns.text!r} values of the kind {of}, and no text; name another by "
            "download.text_column"
        )


def _as_bytes(texts: pa.Array) -> pa.Array:
    """The same, of which nobody knows yet whether it is UTF-8."""
    import pyarrow as pa
    import pyarrow.types as kinds

    if kinds.is_null(texts.type):
        return texts
    if kinds.is_dictionary(texts.type):
        return pa.DictionaryArray.from_arrays(texts.indices, _as_bytes(texts.dictionary))
    views = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
    return texts.view(views[texts.type])


def _parquet(what: str, path: Path, columns: Columns) -> Iterator[tuple[pa.Array, pa.Array | None]]:
    import pyarrow as pa
    from pyarrow import parquet

    with pa.OSFile(os.fsencode(path)) as file:
        schema = parquet.read_schema(file)
        names = wanted(what, columns, schema.names)
        _check_kind(what, columns, schema.field(columns.text).type)
        # What comes often is in memory once, as an index for each row.
        options = {"read_dictionary": [columns.text], "buffer_size": 1 << 20, "pre_buffer": False}
        table = parquet.ParquetFile(file, **options)
        for batch in table.iter_batches(ROWS, columns=names, use_threads=False):
            texts = batch.column(columns.text)
            yield _as_bytes(texts), batch.column(columns.order) if columns.order else None


def _ipc(what: str, path: Path, columns: Columns) -> Iterator[tuple[pa.Array, pa.Array | None]]:
    """A file of Arrow begins with a magic number, behind which lies what a stream is without one."""
    import pyarrow as pa

    with pa.memory_map(os.fsencode(path)) as file:
        start = 8 if file.read(6) == b"ARROW1" else 0
        if start and file.seek(-6, os.SEEK_END) and file.read(6) != b"ARROW1":
            raise ValueError("it ends too early")
        file.seek(start)
        messages = pa.ipc.MessageReader.open_stream(file)
        schema = pa.ipc.read_schema(messages.read_next_message())
        names = wanted(what, columns, schema.names)
        _check_kind(what, columns, schema.field(columns.text).type)
        while (message := _next(messages)) is not None:
            if (size := _unpacked(message)) > BATCH:
                raise CorpusError(
                    f"{what} has a record batch that unpacks to {size:,} bytes, of {BATCH:,} that it may have; "
                    "write it in smaller ones, or as Parquet"
                )
        file.seek(start)
        fields = [schema.names.index(name) for name in names]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        with pa.ipc.open_stream(file, options=options) as reader:
            for batch in reader:
                texts = _as_bytes(batch.column(columns.text))
                texts.validate(full=True)
                orders = batch.column(columns.order) if columns.order else None
                if orders is not None:
                    orders.validate(full=True)
                yield texts, orders


def _next(messages: pa.ipc.MessageReader) -> pa.ipc.Message | None:
    try:
        return messages.read_next_message()
    except StopIteration:
        return None


def _unpacked(message: pa.ipc.Message) -> int:
    """Bytes that the buffers of a message unpack to, 0 where they are not compressed: each begins with its size."""
    try:
        told = Message(message.metadata.to_pybytes())
        batch = told.inside(told.header, 1) if message.type == "dictionary batch" else told.header
        if not told.field(batch, 3):
            return 0
        buffers, total = told.inside(batch, 2), 0
        for number in range(told.at("<I", buffers)):
            offset, length = (told.at("<q", buffers + 4 + 16 * number + part) for part in (0, 8))
            if length >= 8:
                total += max(struct.unpack("<q", message.body.slice(offset, 8).to_pybytes())[0], length - 8)
    except (struct.error, IndexError):
        raise ValueError("one of its batches cannot be read") from None
    return total
