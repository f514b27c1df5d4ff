"""The index table on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.errors import StoreError
from data.tables.tokens import IndexTable, Split
from data.tables.vocab import Vocab


def table(ids: np.ndarray, vocab_size: int = 100) -> IndexTable:
    total = len(ids)
    splits = {
        "train": Split(0, total - 3, total - 3, 1),
        "valid": Split(total - 3, total - 1, 2, 0),
        "test": Split(total - 1, total, 1, 0),
    }
    return IndexTable(ids, splits, "char", "book", "0" * 64, vocab_size)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32"])
def test_what_was_written_is_mapped_and_not_copied(tmp_path: Path, kind: str) -> None:
    written = table(np.arange(100, dtype=kind))
    written.write(tmp_path / "tokens.arrow")
    before = pa.total_allocated_bytes()
    opened = IndexTable.open(tmp_path / "tokens.arrow")
    train = opened.split("train")

    assert np.array_equal(opened.ids, written.ids)
    assert opened.ids.dtype == kind
    assert opened.splits == written.splits
    assert (opened.level, opened.normalizer) == ("char", "book")
    assert (opened.corpus_sha256, opened.vocab_size) == ("0" * 64, 100)
    assert len(train) == len(opened.splits["train"]) == 97
    assert np.shares_memory(train, opened.ids)
    assert pa.total_allocated_bytes() - before < 100
    with pytest.raises(ValueError, match="read-only"):
        train[0] = 1


def test_the_file_is_one_plain_batch_that_any_arrow_reads(tmp_path: Path) -> None:
    table(np.arange(10, dtype=np.uint8)).write(tmp_path / "a.arrow")
    table(np.arange(10, dtype=np.uint8)).write(tmp_path / "b.arrow")
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()
    with pa.OSFile(str(tmp_path / "a.arrow"), "rb") as file, pa.ipc.open_file(file) as reader:
        assert reader.num_record_batches == 1
        assert reader.read_all().to_pydict() == {"id": list(range(10))}
        assert reader.schema.metadata[b"level"] == b'"char"'


def test_figures_are_taken_of_the_end_of_a_training_split_that_says_so(tmp_path: Path) -> None:
    part = Split(5, 7, 2, 0, 3.5)
    replace(table(np.arange(10, dtype=np.uint8)), part=part).write(tmp_path / "tokens.arrow")
    opened = IndexTable.open(tmp_path / "tokens.arrow")
    assert opened.measured("train") == part
    assert opened.measured("test") == opened.splits["test"] == Split(9, 10, 1, 0)
    assert table(np.arange(10, dtype=np.uint8)).measured("train") == Split(0, 7, 7, 1)


def test_a_table_of_an_earlier_version_is_opened() -> None:
    (file,) = (Path(__file__).parents[1] / "store" / "published" / "tokenize").glob("*/tokens.arrow")
    old = IndexTable.open(file)
    assert len(old.split("train")) == len(old.measured("train")) > 1000
    assert old.splits["test"].spelling == 0


def test_a_stream_that_ends_before_its_batch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.arrow"
    table(np.arange(100, dtype=np.uint8)).write(path)
    content = bytearray(path.read_bytes())
    schema = int.from_bytes(content[12:16], "little")  # behind the magic number and a mark, its length
    content[20 + schema : 24 + schema] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="it ends before its batch"):
        IndexTable.open(path)


def test_what_is_no_index_table_is_refused_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "tokens.arrow"
    with pytest.raises(StoreError, match=r"tokens\.arrow is not an index table"):
        IndexTable.open(file)
    table(np.arange(50, dtype=np.uint8)).write(file)
    whole = file.read_bytes()
    for damaged in (b"", b"not Arrow at all", whole[:-9], whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(StoreError, match="tokenize again"):
            IndexTable.open(file)
    Vocab.build({"a": 1}).write(file)
    with pytest.raises(StoreError, match="tokenize again"):
        IndexTable.open(file)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (Split(0, 7, 7, 2), "other tokens are unknown than it counts"),
        (Split(0, 7, 8, 1), "other characters than it has"),
        (Split(0, 7, 6, 1), "other characters than it has"),
    ],
)
def test_counts_that_do_not_sum_are_refused(tmp_path: Path, train: Split, said: str) -> None:
    lying = table(np.arange(10, dtype=np.uint8))
    replace(lying, splits={**lying.splits, "train": train}).write(tmp_path / "tokens.arrow")
    with pytest.raises(StoreError, match=said):
        IndexTable.open(tmp_path / "tokens.arrow")
