"""The rows of tables of every kind: one text each, by their numbers; and what each refusal says."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv, feather, parquet

from data.documents import columnar, rows
from data.documents.columns import Columns, Row, ordered
from data.documents.rows import Kind, kind
from data.errors import CorpusError

TEXTS = ["One line.", None, 'Quotes "…", commas,\nand lines\r\n', "", "é 🙂 " * 1000, "last"]
STARS: Sequence[Any] = [5, 3, 1, 4, 2, 3]


def table(**columns: Any) -> pa.Table:
    return pa.table(columns)


def jsonl(path: Path, table: pa.Table) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()), encoding="utf-8")


def arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)


def stream(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def large(path: Path, table: pa.Table) -> None:
    fields = [field.with_type(pa.large_string()) if field.name == "text" else field for field in table.schema]
    arrow(path, table.cast(pa.schema(fields)))


def encoded(path: Path, table: pa.Table) -> None:
    at = table.column_names.index("text")
    arrow(path, table.set_column(at, "text", table.column(at).combine_chunks().dictionary_encode()))


WRITERS: dict[str, tuple[Kind, Callable[[Path, pa.Table], None]]] = {
    "jsonl": ("jsonl", jsonl),
    "csv": ("csv", lambda path, table: csv.write_csv(table, path)),
    "parquet": ("parquet", lambda path, table: parquet.write_table(table, path, row_group_size=4)),
    "parquet without dictionaries": ("parquet", lambda path, one: parquet.write_table(one, path, use_dictionary=False)),
    "arrow": ("arrow", arrow),
    "stream": ("arrow", stream),
    "large strings": ("arrow", large),
    "dictionary": ("arrow", encoded),
    "feather": ("arrow", lambda path, table: feather.write_feather(table, path, compression="zstd")),
    "feather by lz4": ("arrow", lambda path, table: feather.write_feather(table, path, compression="lz4")),
}


def read(path: Path, of: Kind, *, text: str = "text", order: str = "", size: int = 7) -> list[Row]:
    def chunks() -> Iterator[bytes]:
        content = path.read_bytes()
        yield from (content[at : at + size] for at in range(0, len(content), size))

    return [*rows.rows("corpus 'test'", of, path, chunks, Columns(text, order))]


@pytest.mark.parametrize("written", WRITERS)
def test_a_row_is_a_text_whatever_the_table(tmp_path: Path, written: str) -> None:
    of, write = WRITERS[written]
    write(tmp_path / "table", table(id=[*range(6)], text=TEXTS, stars=STARS))
    found = read(tmp_path / "table", of, order="stars")
    assert [row.number for row in found] == [1, 2, 3, 4, 5, 6]
    assert [row.text.decode() for row in found] == [text or "" for text in TEXTS]
    assert [int(row.order) for row in found] == STARS


@pytest.mark.parametrize("written", WRITERS)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, written: str) -> None:
    of, write = WRITERS[written]
    write(tmp_path / "table", table(id=[1], text=["a"], body=["b"]))
    says = (
        r"^corpus 'test' has no column '{0}': its columns are 'id', 'text', 'body'; say which by `--set download.{1}="
    )
    with pytest.raises(CorpusError, match=says.format("words", "text_column")):
        read(tmp_path / "table", of, text="words")
    with pytest.raises(CorpusError, match=says.format("when", "order_column")):
        read(tmp_path / "table", of, order="when")
    assert read(tmp_path / "table", of, text="body")[0].text == b"b"


@pytest.mark.parametrize("written", [name for name in WRITERS if name not in ("csv", "large strings", "dictionary")])
def test_a_column_of_numbers_is_no_text(tmp_path: Path, written: str) -> None:
    of, write = WRITERS[written]
    write(tmp_path / "table", table(text=[7, 8]))
    with pytest.raises(CorpusError, match=r"values of the kind int64, and no text|in row 1 no text .* but 7; corr"):
        read(tmp_path / "table", of)


@pytest.mark.parametrize("written", [name for name in WRITERS if name != "csv"])
def test_a_table_cut_anywhere_is_refused(tmp_path: Path, written: str) -> None:
    of, write = WRITERS[written]
    write(tmp_path / "table", table(text=["a long text " * 10] * 10, more=[*range(10)]))
    whole = (tmp_path / "table").read_bytes()
    expected = read(tmp_path / "table", of)
    for end in range(1, len(whole), max(len(whole) // 50, 1)):
        (tmp_path / "table").write_bytes(whole[:end])
        try:
            found = read(tmp_path / "table", of, size=1000)
        except CorpusError:
            continue
        # A stream may end behind any of its batches, and lines behind any of them.
        assert written in ("jsonl", "stream")
        assert found == expected[: len(found)]


def test_damage_anywhere_gives_rows_or_a_sentence(tmp_path: Path) -> None:
    """And never ends the process: what is not the file's is not read."""
    for written in ("parquet", "arrow", "stream", "feather", "dictionary"):
        of, write = WRITERS[written]
        write(tmp_path / "table", table(text=["some text", "and more", "and more"], n=[1, 2, 3]))
        whole = (tmp_path / "table").read_bytes()
        for at in range(0, len(whole), 13):
            (tmp_path / "table").write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
            with suppress(CorpusError):
                read(tmp_path / "table", of, order="n")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (b'{"text": "a"}\n{"text": 7}', "in row 2 no text in the column 'text' but 7; correct it"),
        (b'{"text": "a"}\n\n{"text": ["b"]}', r"in row 3 no text in the column 'text' but \[\"b\"\]"),
        (b'{"text": "a"}\n{"text": "b"', "has a line 2 that is no JSON"),
        (b'{"text": "a"}\n"b"', "has a line 2 that is no object with named columns"),
        (b'{"text": "\\ud83d"}', "in row 1 half of a pair of"),
        (b"[" * 200_000, "has a line 1 that is no JSON"),
        (b'{"text": ' + b"9" * 10_000 + b"}", "has a line 1 that is no JSON"),
        (b'{"text": "' + b"a" * 70_000 + b'"}', "has a line 1 of more than the 65,536 bytes that a row may have"),
        (b'{"body": "a"}', "its columns are 'body'; say which by `--set download.text_column=body`"),
    ],
)
def test_lines_that_are_no_rows(tmp_path: Path, lines: bytes, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if lines.startswith(b"{"):
        monkeypatch.setattr(rows, "BLOCK", 1 << 16)
    (tmp_path / "table").write_bytes(lines)
    with pytest.raises(CorpusError, match=says):
        read(tmp_path / "table", "jsonl", size=1 << 18)


def test_a_row_of_json_may_lack_the_column_and_is_empty(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n{"id": 1}\n{"text": null}\n')
    assert [(row.number, row.text) for row in read(tmp_path / "table", "jsonl")] == [(1, b"a"), (2, b""), (3, b"")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no table that can be read .*[Ee]mpty CSV"),
        (b"id,text\n1,a\n2\n", "is no table that can be read .*Expected 2 columns, got 1"),
        (b"text,text\na,b\n", "has several columns that are called 'text'"),
        (b"text\n" + b"a" * 200_000, "has a row of more than the 65,536 bytes that a row may have"),
        (b'text\n"' + b"a\n" * 100_000, "a quotation mark that nothing closes"),
    ],
)
def test_csv_that_is_none(tmp_path: Path, content: bytes, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK", 1 << 16)
    (tmp_path / "table").write_bytes(content)
    with pytest.raises(CorpusError, match=says):
        read(tmp_path / "table", "csv", size=1 << 18)


def test_a_batch_that_unpacks_to_more_than_memory_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feather.write_feather(table(text=["a" * 1_000_000]), tmp_path / "table", compression="zstd")
    assert (tmp_path / "table").stat().st_size < 10_000
    monkeypatch.setattr(columnar, "BATCH", 999_999)
    monkeypatch.setattr(pa.ipc, "open_stream", None)
    with pytest.raises(CorpusError, match=r"has a record batch that unpacks to 1,000,\d\d\d bytes, of 999,999 that"):
        read(tmp_path / "table", "arrow")


def test_a_value_that_comes_often_is_in_memory_once(tmp_path: Path) -> None:
    """Of 100 MB of text in 5 kB of Parquet no more is in memory than of each row."""
    rows_of = columnar.ROWS
    parquet.write_table(table(text=pa.array(["a" * 100_000] * rows_of).dictionary_encode()), tmp_path / "table")
    before = pa.total_allocated_bytes()
    path = tmp_path / "table"
    for row in rows.rows("it", "parquet", path, lambda: iter(()), Columns()):
        assert len(row.text) == 100_000
        assert pa.total_allocated_bytes() - before < 10_000_000


WHEN = dt.datetime(2026, 11, 28, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([3, 1, 2, 1], [1, 3, 2, 0]),
        ([0.5, -1, 2], [1, 0, 2]),
        (["10", "9", " 9.5"], [1, 2, 0]),
        (["10", "9", "x"], [0, 1, 2]),
        (["2026-11-28", "2026-02-01"], [1, 0]),
    ],
)
def test_rows_are_ordered_by_what_the_column_holds(values: list[Any], places: list[int]) -> None:
    assert ordered("it", values) == places


@pytest.mark.parametrize(
    "column",
    [
        pa.array([WHEN, WHEN - dt.timedelta(1), WHEN + dt.timedelta(1)]),
        pa.array([WHEN, WHEN - dt.timedelta(1), WHEN + dt.timedelta(1)], pa.timestamp("ns")),
        pa.array([dt.date(2026, 1, 2), dt.date(2026, 1, 1), dt.date(2027, 1, 1)]),
        pa.array([dt.time(2), dt.time(1), dt.time(3)]),
        pa.array([decimal.Decimal("2.5"), decimal.Decimal("1.5"), decimal.Decimal("10")]),
        pa.array(["b", "a", "c"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_dates_and_times_are_ordered(tmp_path: Path, column: pa.Array) -> None:
    arrow(tmp_path / "table", table(text=["1", "2", "3"], when=column))
    values = [row.order for row in read(tmp_path / "table", "arrow", order="when")]
    assert ordered("it", values) == [1, 0, 2]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1, None, float("nan")], "it has 2 rows of 3 without a value in the column that download.order_column names"),
        ([1, "a"], r"it has values of several kinds \(int and str\)"),
    ],
)
def test_what_has_no_order(values: list[Any], says: str) -> None:
    with pytest.raises(CorpusError, match=says):
        ordered("it", values)


def test_a_column_that_nothing_can_be_ordered_by(tmp_path: Path) -> None:
    arrow(tmp_path / "table", table(text=["1"], n=[[1, 2]]))
    with pytest.raises(CorpusError, match=r"has values of the kind list<.*> where rows are to be ordered by them"):
        read(tmp_path / "table", "arrow", order="n")
    jsonl(tmp_path / "table", table(text=["1"], n=[[1, 2]]))
    with pytest.raises(CorpusError, match="has in row 1 nothing in 'n' that rows can be ordered by"):
        read(tmp_path / "table", "jsonl", order="n")


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("reviews.CSV", "csv"),
        ("a/b.jsonl.gz", "jsonl"),
        ("x.ndjson", "jsonl"),
        ("x.parquet", "parquet"),
        ("x.feather", "arrow"),
        ("x.arrow", "arrow"),
        ("x.csv.zst", "csv"),
        ("csv", None),
        ("x.csv.txt", None),
        ("x.json", None),
    ],
)
def test_the_suffix_says_what_a_table_is(name: str, of: str | None) -> None:
    assert kind(name) == of
