"""The index table on disk, and the minibatches of the book over it."""

import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.errors import CorpusError, StoreError
from data.tables.tokens import IndexTable, Minibatches, Split
from data.tables.vocab import Vocab


def table(ids: np.ndarray, vocab_size: int = 28) -> IndexTable:
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
    assert (opened.corpus_sha256, opened.vocab_size) == ("0" * 64, 28)
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


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize("partition", ["sequential", "random"])
def test_minibatches_have_the_shape_of_the_book_and_targets_one_ahead(partition: str) -> None:
    ids = np.arange(1000, dtype=np.uint16)
    seen = set()
    for seed in range(40):
        batches = Minibatches(ids, 4, 7, partition, generator(seed))
        assert len(batches) == len(list(batches))
        for number, (inputs, targets) in enumerate(batches, 1):
            for part in (inputs, targets):
                assert part.shape == (4, 7) or (partition == "sequential" and number == len(batches))
                assert part.dtype == np.int32
                assert part.flags.c_contiguous
            assert np.array_equal(targets, inputs + 1)
            assert (np.diff(inputs, axis=1) == 1).all()
        offset = min(int(inputs.min()) for inputs, _ in batches)
        seen.add(offset if partition == "sequential" else offset % 7)
    assert seen == set(range(8 if partition == "sequential" else 7))


@pytest.mark.parametrize("length", [43, 44, 50, 97, 331])
def test_sequential_partition_is_the_chapters(length: int) -> None:
    batch_size, num_steps = 3, 5
    ids = (np.arange(length) * 7 % 251).astype(np.uint8)
    for seed in range(20):
        offset = int(generator(seed).integers(0, num_steps + 1))
        used = (length - offset - 1) // batch_size * batch_size
        rows = ids[offset : offset + used].reshape(batch_size, -1)
        ahead = ids[offset + 1 : offset + 1 + used].reshape(batch_size, -1)
        batches = Minibatches(ids, batch_size, num_steps, "sequential", generator(seed))
        assert len(batches) == math.ceil(rows.shape[1] / num_steps), "the rows' ends are no tokens to drop"
        for i, (inputs, targets) in enumerate(batches):
            columns = slice(i * num_steps, (i + 1) * num_steps)
            assert np.array_equal(inputs, rows[:, columns])
            assert np.array_equal(targets, ahead[:, columns])


def test_random_sampling_shuffles_every_subsequence_once() -> None:
    ids = np.arange(500, dtype=np.uint16)
    batches = Minibatches(ids, 4, 6, "random", generator(3))
    starts = [int(start) for inputs, _ in batches for start in inputs[:, 0]]
    offset = int(generator(3).integers(0, 7))
    every = [offset + k * 6 for k in range((500 - offset - 1) // 6)]
    assert len(starts) == len(every) // 4 * 4
    assert len(set(starts)) == len(starts)
    assert set(starts) <= set(every)
    assert starts != sorted(starts)


@pytest.mark.parametrize("partition", ["sequential", "random"])
def test_the_generators_state_gives_any_minibatch_again(partition: str) -> None:
    ids = (np.arange(900) % 100).astype(np.uint8)
    rng = generator()
    Minibatches(ids, 4, 7, partition, rng)
    state = rng.bit_generator.state
    second = Minibatches(ids, 4, 7, partition, rng)
    after = rng.bit_generator.state
    list(second)
    assert rng.bit_generator.state == after

    resumed = generator(99)
    resumed.bit_generator.state = state
    again = Minibatches(ids, 4, 7, partition, resumed)
    for i in (5, 0, -1):
        assert np.array_equal(again[i], second[i])
    assert [inputs.tolist() for inputs, _ in again[5:7]] == [second[5][0].tolist(), second[6][0].tolist()]
    with pytest.raises(IndexError):
        again[len(again)]


@pytest.mark.parametrize("partition", ["sequential", "random"])
@pytest.mark.parametrize(("batch_size", "num_steps"), [(1, 1), (1, 9), (5, 1), (4, 7), (32, 35)])
def test_a_split_is_refused_exactly_when_some_offset_leaves_no_minibatch(
    partition: str, batch_size: int, num_steps: int
) -> None:
    needed = (batch_size * num_steps if partition == "random" else batch_size) + num_steps + 1
    enough = np.zeros(needed, np.uint8)
    lengths = {len(Minibatches(enough, batch_size, num_steps, partition, generator(seed))) for seed in range(100)}
    assert min(lengths) == 1
    with pytest.raises(CorpusError, match=f"has {needed - 1:,} tokens, .* need {needed:,}"):
        Minibatches(enough[:-1], batch_size, num_steps, partition, generator())


@pytest.mark.parametrize("partition", ["sequential", "random"])
def test_the_refusal_names_values_that_fit(partition: str) -> None:
    for length in range(3, 120 if partition == "random" else 68):
        ids = np.zeros(length, np.uint8)
        with pytest.raises(CorpusError) as refusal:
            Minibatches(ids, 32, 35, partition, generator())
        remedies = dict(re.findall(r"train\.(batch_size|num_steps)(?: to at most |=)(\d+)", str(refusal.value)))
        assert remedies
        if "train.batch_size=1 and" in str(refusal.value):
            choices = [(1, int(remedies["num_steps"]))]
        else:
            choices = [(int(n), 35) if name == "batch_size" else (32, int(n)) for name, n in remedies.items()]
        for batch_size, num_steps in choices:
            for seed in range(5):
                assert len(Minibatches(ids, batch_size, num_steps, partition, generator(seed)))
    for length in range(3):
        with pytest.raises(CorpusError, match="too short for any"):
            Minibatches(np.zeros(length, np.uint8), 32, 35, partition, generator())
