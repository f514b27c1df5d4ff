"""The table of scores: Arrow, Parquet, JSON lines or CSV by its suffix, written as rows come, there once whole."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from data import shown
from data.documents.rows import KINDS
from data.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    import pyarrow as pa

    Row = dict[str, Any]
    """By the names of `COLUMNS`."""

COLUMNS = {
    "number": "int64",
    "name": "string",
    "characters": "int64",
    "tokens": "int64",
    "bits_per_character": "float64",
    "unknown_rate": "float64",
    "span": "string",
    "span_at": "int64",
    "span_bits": "float64",
}
"""Name → type, as Arrow calls it."""
ROWS = 1 << 14
"""Of a batch, or a row group."""


def check(path: Path) -> None:
    """See that a table can be written there, before anything takes long.

    Raises:
        ConfigError: a suffix that is none of a table, or a place where no file can be.
    """
    if path.suffix[1:].lower() not in KINDS:
        raise ConfigError(f"--to {path} has the suffix of no table: give .{', .'.join(KINDS)}")
    if not path.parent.is_dir() or (path.exists() and not path.is_file()):
        raise ConfigError(f"--to {path} is no place for a file: name one in a folder that is there")


def line(row: Row) -> str:
    """A row as a line of JSON, in which nothing commands a terminal."""
    return shown.escaped(json.dumps(row, ensure_ascii=False)) + "\n"


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a file, in the place of an old one if there is one. Until the last row has come, what was there is there.

    Args:
        path: which `check` has seen.
        rows: that may raise anything: then nothing is left of them.

    Raises:
        ConfigError: a disk that does not take it.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    kind = KINDS[path.suffix[1:].lower()]
    try:
        with part.open("xb") as file:
            if kind in ("jsonl", "csv"):
                file.writelines(text.encode() for text in (map(line, rows) if kind == "jsonl" else _csv(rows)))
            else:
                _batches(kind, file, rows)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"--to {path} cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            part.unlink()


def _csv(rows: Iterable[Row]) -> Iterator[str]:
    for row in itertools.chain([dict(zip(COLUMNS, COLUMNS, strict=True))], rows):
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerow(row.values())
        yield written.getvalue()


def _batches(kind: str, file: BinaryIO, rows: Iterable[Row]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([pa.field(name, pa.type_for_alias(of)) for name, of in COLUMNS.items()])
    rows = iter(rows)
    writer: pa.RecordBatchFileWriter | parquet.ParquetWriter
    with pa.ipc.new_file(file, schema) if kind == "arrow" else parquet.ParquetWriter(file, schema) as writer:
        while some := list(itertools.islice(rows, ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(some, schema))
