"""What an n-gram model has counted, on disk."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.errors import StoreError
from data.tables import arrow, ngrams
from data.tables.ngrams import NGrams
from data.tables.vocab import Vocab
from stages.lm.counts import count
from stages.lm.ngram import NGram

TEXT = np.array([1 if at % 11 == 10 else random.Random(at).randrange(2, 6) for at in range(300)], np.uint8)


@pytest.fixture(scope="module")
def table() -> NGrams:
    return count(TEXT, 6, 4, ends=True, min_count=2)


def changed(table: NGrams, name: str, row: int, value: int) -> NGrams:
    column = getattr(table, name).copy()
    column[row] = value
    return replace(table, **{name: column})


def refused(path: Path, vocab_size: int = 6) -> str:
    with pytest.raises(StoreError, match=r"holds no n-grams that can be read \(.*\): train again") as caught:
        NGrams.open(path, vocab_size)
    return str(caught.value)


def test_what_was_written_is_mapped_and_not_copied(tmp_path: Path, table: NGrams) -> None:
    for name in "ab":
        table.write(tmp_path / f"{name}.arrow")
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()
    before = pa.total_allocated_bytes()
    opened = NGrams.open(tmp_path / "a.arrow", 6)
    assert pa.total_allocated_bytes() - before < 100
    for name in ("key", "count", "left"):
        np.testing.assert_array_equal(getattr(opened, name), getattr(table, name))
        assert not getattr(opened, name).flags.writeable
    assert replace(opened, key=table.key, count=table.count, left=table.left) == table
    assert opened.left.any()


def test_the_file_is_one_plain_batch_that_any_arrow_reads(tmp_path: Path, table: NGrams) -> None:
    table.write(tmp_path / "ngrams.arrow")
    with pa.OSFile(str(tmp_path / "ngrams.arrow"), "rb") as file, pa.ipc.open_file(file) as reader:
        assert reader.num_record_batches == 1
        assert reader.schema.names == ["key", "count", "left"]
        assert json.loads(reader.schema.metadata[b"sizes"]) == [*table.sizes]
        assert reader.read_all().num_rows == sum(table.sizes)


def test_what_is_no_table_of_n_grams_is_refused_in_one_sentence(tmp_path: Path, table: NGrams) -> None:
    file = tmp_path / "ngrams.arrow"
    refused(file)
    table.write(file)
    assert "another vocabulary" in refused(file, 7)
    whole = file.read_bytes()
    batch = whole.index(b"\xff" * 4, 12)  # where its message begins: here the stream ends before it
    ended = whole[: batch + 4] + bytes(4) + whole[batch + 8 :]
    for damaged in (b"", b"not Arrow at all", whole[:-9], whole[: len(whole) // 2], ended):
        file.write_bytes(damaged)
        refused(file)
    Vocab.build({"a": 1}).write(file)
    refused(file)


def test_a_file_that_was_changed_anywhere_is_refused_or_makes_a_model(tmp_path: Path, table: NGrams) -> None:
    file = tmp_path / "ngrams.arrow"
    table.write(file)
    whole, rng, opened = file.read_bytes(), random.Random(1), 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(damaged))] ^= rng.choice([1, 128, 255])
        file.write_bytes(damaged)
        try:
            model = NGram.open(file, 6)
        except StoreError:
            continue
        opened += 1
        states = model.zero_state()
        for id_ in TEXT[:12].tolist():
            probabilities = model.probabilities(states)
            assert probabilities.min() >= 0
            assert probabilities.sum() == pytest.approx(1, abs=1e-9)
            model.advance(id_, states)
    assert 0 < opened < 100


def test_columns_that_make_no_model_are_refused(tmp_path: Path, table: NGrams) -> None:
    first, second, last = table.sizes[0], sum(table.sizes[:2]), sum(table.sizes)
    longer = int(table.key[second])
    cases = [
        (changed(table, "key", 1, int(table.key[0])), "not in order"),
        (changed(table, "key", 0, -1), "begin with what is none"),
        (changed(table, "key", first - 1, 6), "begin with what is none"),
        (changed(table, "key", last - 1, 2**62), "begin with what is none"),
        (changed(table, "key", last - 1, 2**63 - 1), "begin with what is none"),
        (changed(table, "count", 3, -1), "less than none"),
        (changed(table, "left", first, -(2**31)), "less than none"),
        (changed(table, "left", 0, 1), "left out what there cannot be"),
        (changed(table, "left", last - 1, 1), "left out what there cannot be"),
    ]
    ended = next(row for row in range(first, second) if table.key[row] % 6 == 1) + 1
    at = int(table.key.searchsorted(ended * 6))
    cases.append((changed(table, "key", at, ended * 6), "behind the end of a document"))
    assert longer < table.key[at]
    for number, (damaged, said) in enumerate(cases):
        damaged.write(tmp_path / f"{number}.arrow")
        assert said in refused(tmp_path / f"{number}.arrow")


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "sizes": [[], [0], [True, 2], [1e3], [1, -1], [10**400], {"1": 2}, "12", None, [[1]], [1] * 65],
        "discounts": [
            [],
            [[0.5, 1, 1.5]],
            [[0.5, 1.0]],
            [[float("nan")] * 3],
            [[-0.1, 1.0, 1.5]],
            [[1.1, 1.0, 1.0]],
            3,
        ],
        "vocab_size": [None, "6", 6.0, True, 10**30],
        "min_count": [None, 0, "2", 2.0, True],
        "ends": [None, 1, "true"],
        "more": [1],
    }.items(),
)
def test_facts_that_make_no_model_are_refused(tmp_path: Path, table: NGrams, name: str, values: list[Any]) -> None:
    names = ("sizes", "discounts", "vocab_size", "min_count", "ends")
    facts = {fact: getattr(table, fact) for fact in names}
    columns = {name: pa.array(getattr(table, name)) for name in ("key", "count", "left")}
    file = tmp_path / "ngrams.arrow"
    for value in values:
        # Of discounts, one of the orders is wrong.
        some = [*value, *table.discounts[1:]] if name == "discounts" and value and value != 3 else value
        arrow.write(file, columns, {fact: json.dumps(it) for fact, it in {**facts, name: some}.items()})
        refused(file)
    for told in ("", "[" * 100_000, "{"):
        arrow.write(file, columns, {fact: json.dumps(it) for fact, it in facts.items()} | {name: told})
        refused(file)


def test_more_than_a_model_may_have_are_refused(tmp_path: Path, table: NGrams, monkeypatch: pytest.MonkeyPatch) -> None:
    table.write(tmp_path / "ngrams.arrow")
    monkeypatch.setattr(ngrams, "LARGEST", len(table.key) - 1)
    assert "too many" in refused(tmp_path / "ngrams.arrow")
