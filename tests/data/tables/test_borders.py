"""The table of documents beside the tokens: what is written is read, and what does not fit is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import StoreError
from data.tables.borders import Borders, Found

FOUND = Found(split="content", documents=(1, 1, 0), copies=1, near=(0, 1))
BORDERS = Borders(["a", "b"], np.array([0, 5]), np.array([5, 2]), np.array([7, 0]), np.array([4, 1]), FOUND)


def found(**changes: Any) -> Found:
    return replace(FOUND, **changes)


def test_what_is_written_is_read_and_the_same_bytes_come_of_it(tmp_path: Path) -> None:
    for name in ("one", "other"):
        BORDERS.write(tmp_path / name)
    read = Borders.read(tmp_path / "one")
    assert (read.names, read.found) == (BORDERS.names, FOUND)
    for column in ("first", "tokens", "start", "bytes"):
        np.testing.assert_array_equal(getattr(read, column), getattr(BORDERS, column))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": np.array([5, 0])},
        {"first": np.array([0, 6])},
        {"bytes": np.array([4, 0])},
        {"start": np.array([-1, 0])},
        {"found": found(split="otherwise")},
        {"found": found(documents=(1, 1))},
        {"found": found(documents=3)},
        {"found": found(copies=-1)},
        {"found": found(near=(1.5, 2))},
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    replace(BORDERS, **changes).write(tmp_path / "borders")
    with pytest.raises(StoreError, match=r"borders is no table of documents that can be read .*: tokenize again"):
        Borders.read(tmp_path / "borders")


@pytest.mark.parametrize("said", [None, "[]", "3", "{", json.dumps({"split": "content"}), json.dumps({"more": 1})])
def test_what_says_nothing_of_its_documents_is_refused(tmp_path: Path, said: str | None) -> None:
    BORDERS.write(tmp_path / "whole")
    batch = pa.ipc.open_file(tmp_path / "whole").get_batch(0)
    schema = batch.schema.with_metadata({} if said is None else {"found": said})
    with pa.ipc.new_file(tmp_path / "borders", schema) as writer:
        writer.write_batch(pa.record_batch(batch.columns, schema=schema))
    with pytest.raises(StoreError, match="tokenize again"):
        Borders.read(tmp_path / "borders")
