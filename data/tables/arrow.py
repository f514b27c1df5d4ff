"""Arrow files as this project writes them: certain columns, one record batch, not compressed; and no others."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from data.store.reading import check
from data.tables.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pyarrow as pa


def write(path: Path, columns: Mapping[str, pa.Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write a file of one batch, of columns that lack no value; the same columns give the same bytes."""
    import pyarrow as pa

    fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
    schema = pa.schema(fields, metadata=dict(metadata) if metadata else None)
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)  # more than 2³¹ - 1 rows, or bytes of strings
    with pa.OSFile(os.fsencode(path), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_batch(pa.record_batch([*columns.values()], schema=schema))


def batch(path: Path, fits: Callable[[pa.Schema], bool]) -> pa.RecordBatch:
    """The one batch of a file; what it takes of memory is no more than the file.

    Args:
        path: the file.
        fits: whether its schema is the one that is wanted.

    Raises:
        OSError: no such file, or none that can be read.
        ValueError: anything else than such a file, ``pyarrow.ArrowInvalid`` among it.
    """
    import pyarrow as pa

    mapped = pa.memory_map(os.fsencode(check(path)))
    if pa.ipc.open_file(mapped).num_record_batches != 1:
        raise ValueError("it has not one batch")
    mapped.seek(8)  # behind the magic number lies a stream
    messages = pa.ipc.MessageReader.open_stream(mapped)
    try:
        schema = pa.ipc.read_schema(messages.read_next_message())
        message = messages.read_next_message()
    except StopIteration:
        raise ValueError("it ends before its batch") from None
    if not fits(schema):
        raise ValueError("its columns are others")
    if message.type != "record batch" or _compressed(message.metadata.to_pybytes()):
        raise ValueError("it is compressed")  # 7 MB that become 2 GB, for one
    found = pa.ipc.read_record_batch(message, schema)
    found.validate(full=True)
    if any(column.null_count and not field.nullable for column, field in zip(found.columns, schema, strict=True)):
        raise ValueError("it lacks values")
    return found


def _compressed(metadata: bytes) -> bool:
    """Whether the message of a record batch says so."""
    try:
        message = Message(metadata)
        return bool(message.field(message.header, 3))
    except struct.error:
        raise ValueError("its batch cannot be read") from None
