"""The history of a training, on disk and back."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa

from data.tables import history


def test_columns_come_back_with_the_epochs_before_them(tmp_path: Path) -> None:
    history.write(tmp_path / "history.arrow", {"train_loss": [2.5, 1.5], "valid_loss": [math.nan, 2.0]})
    read = history.read(tmp_path / "history.arrow")
    assert read == {"epoch": [1, 2], "train_loss": [2.5, 1.5], "valid_loss": [None, 2.0]}
    assert list(read) == ["epoch", "train_loss", "valid_loss"]


def test_the_file_is_one_plain_batch_that_any_arrow_reads(tmp_path: Path) -> None:
    for name in ("a", "b"):
        history.write(tmp_path / name, {"learning_rate": [1.0, 0.5]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pa.OSFile(str(tmp_path / "a"), "rb") as file, pa.ipc.open_file(file) as reader:
        assert reader.num_record_batches == 1
        assert reader.schema == pa.schema({"epoch": pa.int32(), "learning_rate": pa.float64()})
