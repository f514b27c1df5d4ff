"""The table of scores: the same rows whatever its format, and there whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import feather, parquet

from data.errors import ConfigError, Interrupted
from stages.scoring import table

ROWS: list[dict[str, Any]] = [
    dict(zip(table.COLUMNS, row, strict=True))
    for row in (
        [1, None, 8, 7, 2.5, 0.0, 'sea,\x1b\u2028"é', 3, 9.25],
        [2, "a.csv:2", 0, 0, None, None, None, None, None],
        [3, "a\nb", 4, 3, 1.25, 0.5, "x", 0, 4.0],
    )
]


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [*csv.DictReader(file)]
    rows: list[dict[str, Any]] = (
        parquet.read_table(path) if path.suffix == ".parquet" else feather.read_table(path)
    ).to_pylist()
    return rows


@pytest.mark.parametrize("suffix", ["arrow", "feather", "parquet", "jsonl", "csv", "CSV"])
def test_a_table_has_its_rows(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROWS", 2)
    path = tmp_path / f"scores.{suffix}"
    path.write_text("what was there")
    table.check(path)
    table.write(path, iter(ROWS))
    expected = ROWS
    if suffix.lower() == "csv":
        expected = [{name: "" if value is None else str(value) for name, value in row.items()} for row in ROWS]
        path = path.rename(path.with_suffix(".csv"))
    assert read(path) == expected
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("suffix", ["arrow", "parquet", "jsonl", "csv"])
def test_rows_that_end_too_early_leave_what_was_there(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"scores.{suffix}"
    path.write_text("what was there")

    def rows() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise Interrupted("interrupted", 2)

    with pytest.raises(Interrupted):
        table.write(path, rows())
    assert path.read_text() == "what was there"
    assert [*tmp_path.iterdir()] == [path]


def test_a_place_that_takes_no_table_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name, said in (
        ("scores.xls", "suffix of no table"),
        ("scores", "suffix of no table"),
        ("scores.csv.gz", "suffix of no table"),
        ("nowhere/scores.csv", "no place for a file"),
        ("folder.csv", "no place for a file"),
    ):
        with pytest.raises(ConfigError, match=said):
            table.check(tmp_path / name)


def test_a_line_commands_no_terminal_and_says_the_same() -> None:
    line = table.line(ROWS[0])
    assert "\x1b" not in line
    assert "\u2028" not in line
    assert json.loads(line) == ROWS[0]
