"""The table of documents: what its file holds, and what is no such file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from data.errors import StoreError
from data.tables.documents import Documents


def documents(*sizes: int, gap: int = 1) -> Documents:
    found, start = Documents(), 0
    for number, size in enumerate(sizes):
        found.add(f"é{number}", start, size, hashlib.sha256(b"%d" % size).digest())
        start += size + gap
    return found


def test_a_file_holds_the_documents_and_the_same_ones_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        documents(3, 1, 5_000_000_000).write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = Documents.read(tmp_path / "a")
    assert again == documents(3, 1, 5_000_000_000)
    assert (len(again), again.end) == (3, 5_000_000_006)
    batch = pa.ipc.open_file(tmp_path / "a").get_batch(0)
    assert [(field.name, str(field.type)) for field in batch.schema] == [
        ("name", "string"),
        ("start", "int64"),
        ("bytes", "int64"),
        ("sha256", "string"),
    ]


def test_documents_in_another_order() -> None:
    moved = documents(3, 1, 7).moved([2, 0, 1], [0, 8, 12])
    assert (moved.names, [*moved.starts], [*moved.sizes]) == (["é2", "é0", "é1"], [0, 8, 12], [7, 3, 1])
    assert moved.digests[0] == hashlib.sha256(b"7").digest()


def test_what_is_no_table_of_documents_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "documents.arrow"
    damaged = [documents(), documents(3, 0), documents(3, 3, gap=2), documents(3, 3, gap=-1), documents(-1)]
    late = documents(3)
    late.starts[0] = 1
    short = documents(3)
    short.digests[0] = b"short"
    for one in (*damaged, late, short):
        one.write(path)
        with pytest.raises(StoreError, match=r"documents.arrow is no table of documents that can be read \(.*\): "):
            Documents.read(path)
    documents(3, 3).write(path)
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-8], b"text"):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="is no table of documents"):
            Documents.read(path)
    path.unlink()
    with pytest.raises(StoreError, match="is no table of documents"):
        Documents.read(path)
