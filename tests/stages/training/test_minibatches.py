"""The minibatches of the book, and rows that are read side by side or alone."""

from __future__ import annotations

import math
import re
from typing import Literal

import numpy as np
import pytest

from data.errors import CorpusError
from stages.training.minibatches import AT_ONCE, ROWS, SHORTEST, WARM_UP, Minibatches, single, whole

Partition = Literal["sequential", "random"]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize("partition", ["sequential", "random"])
def test_minibatches_have_the_shape_of_the_book_and_targets_one_ahead(partition: Partition) -> None:
    ids = np.arange(1000, dtype=np.uint16)
    seen = set()
    for seed in range(40):
        batches = Minibatches(ids, 4, 7, partition, generator(seed))
        assert len(batches) == len(list(batches))
        for number, (inputs, targets) in enumerate(batches, 1):
            for side in (inputs, targets):
                assert side.shape == (4, 7) or (partition == "sequential" and number == len(batches))
                assert side.dtype == np.int32
                assert side.flags.c_contiguous
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
def test_the_generators_state_gives_any_minibatch_again(partition: Partition) -> None:
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
    partition: Partition, batch_size: int, num_steps: int
) -> None:
    needed = (batch_size * num_steps if partition == "random" else batch_size) + num_steps + 1
    enough = np.zeros(needed, np.uint8)
    lengths = {len(Minibatches(enough, batch_size, num_steps, partition, generator(seed))) for seed in range(100)}
    assert min(lengths) == 1
    with pytest.raises(CorpusError, match=f"has {needed - 1:,} tokens, .* need {needed:,}"):
        Minibatches(enough[:-1], batch_size, num_steps, partition, generator())


@pytest.mark.parametrize("partition", ["sequential", "random"])
def test_the_refusal_names_values_that_fit(partition: Partition) -> None:
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


@pytest.mark.parametrize("length", [2, 3, 1024, 1025, 1500, 3000, 16_640, 40_001])
def test_a_whole_split_has_every_token_but_the_first_as_a_target_once_behind_the_text_before_it(length: int) -> None:
    ids = np.arange(length, dtype=np.uint16)
    read = list(whole(ids))
    assert all(inputs.dtype == targets.dtype == np.int32 for inputs, targets in read)
    assert all(inputs.size <= AT_ONCE for inputs, _ in read)
    inputs, targets = (np.concatenate(side, axis=1) for side in zip(*read, strict=True))
    counted = targets >= 0
    assert np.array_equal(np.sort(targets[counted]), ids[1:])
    assert np.array_equal(targets[counted], inputs[counted] + 1)
    assert (np.diff(inputs, axis=1) == 1)[counted[:, 1:]].all(), "each row goes on where it was"
    assert len(inputs) == max(1, min(ROWS, (length - 1) // SHORTEST))
    first, *others = counted
    assert first.all()
    for row, seen in zip(inputs[1:], others, strict=True):
        assert not seen[:WARM_UP].any()
        assert np.array_equal(np.diff(row[:WARM_UP]), np.ones(WARM_UP - 1))
        assert seen[WARM_UP:].sum() >= SHORTEST - WARM_UP


@pytest.mark.parametrize("size", [1, 3, 7, 8, 50])
def test_a_single_row_does_not_show_where_the_text_was_cut(size: int) -> None:
    ids = np.arange(30, dtype=np.uint16) + 250
    read = list(single((ids[at : at + size] for at in range(0, len(ids), size)), 7))
    assert [inputs.shape for inputs, _ in read] == [(1, 7)] * 4 + [(1, 1)]
    for side, expected in zip(zip(*read, strict=True), (ids[:-1], ids[1:]), strict=True):
        assert np.array_equal(np.concatenate(side, axis=1)[0], expected)
    assert list(single([ids[:1]], 7)) == list(single([], 7)) == []
