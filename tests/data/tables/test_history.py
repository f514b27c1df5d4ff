"""The history of a training, on disk and back."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pytest

from data.errors import StoreError
from data.tables import history


def test_columns_come_back_with_the_epochs_before_them(tmp_path: Path) -> None:
    columns = {name: [2.5, math.nan] for name in history.COLUMNS[1:]}
    history.write(tmp_path / "history.arrow", columns)
    read = history.read(tmp_path / "history.arrow")
    assert read == {"epoch": [1, 2], **{name: [2.5, None] for name in columns}}
    assert list(read) == history.COLUMNS


def test_what_is_no_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.arrow"
    history.write(path, {"loss": [1.0]})
    with pytest.raises(StoreError, match=r"history\.arrow is no history .*its columns are others.*: train again"):
        history.read(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"history\.arrow is no history"):
        history.read(path)


def test_the_file_is_one_plain_batch_that_any_arrow_reads(tmp_path: Path) -> None:
    for name in ("a", "b"):
        history.write(tmp_path / name, {"learning_rate": [1.0, 0.5]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pa.OSFile(str(tmp_path / "a"), "rb") as file, pa.ipc.open_file(file) as reader:
        assert reader.num_record_batches == 1
        assert reader.schema == pa.schema({"epoch": pa.int32(), "learning_rate": pa.float64()})


def test_epochs_that_are_not_counted_from_1_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.arrow"
    history.write(path, {name: [1.0, 2.0] for name in history.COLUMNS[1:]})
    with pa.OSFile(str(path), "rb") as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch.take(pa.array([1, 0])))
    with pytest.raises(StoreError, match="its epochs are not counted from 1"):
        history.read(path)
