"""Checkpoints come back as they were written, and a damaged one is passed over."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

from data.errors import StoreError
from stages.training import checkpoint
from stages.training.checkpoint import Checkpoint


def make(epoch=3, step=2, value=1.5):
    rng = np.random.default_rng(epoch)
    return Checkpoint(
        epoch,
        step,
        steps=17,
        parameters={"dense.weight": np.full((2, 3), value, np.float32), "dense.bias": np.zeros(2, np.float32)},
        averages={"dense.weight": np.full((2, 3), value / 2, np.float32), "dense.bias": np.ones(2, np.float32)},
        best={"dense.weight": np.full((2, 3), value * 2, np.float32)},
        moments={"mean/dense.bias": np.full(2, 0.25, np.float32)},
        state={"hidden": np.ones((1, 4, 3), np.float32)},
        generator=rng.bit_generator.state,
        totals={"loss": 0.1 + 0.2, "tokens": 70},
        history=np.array([[1.25, np.nan, 1.0, 0.5, 0.75]] * epoch),
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_everything_comes_back(tmp_path):
    written = make()
    checkpoint.write(tmp_path / "new", written)
    read = checkpoint.latest(tmp_path / "new", 10)
    assert names(tmp_path / "new") == ["000003-000002.safetensors"]
    for field in dataclasses.fields(Checkpoint):
        old, new = getattr(written, field.name), getattr(read, field.name)
        if field.name in ("parameters", "averages", "best", "moments", "state"):
            assert {name: array.tobytes() for name, array in old.items()} == {
                name: array.tobytes() for name, array in new.items()
            }
        else:
            np.testing.assert_equal(new, old)
    resumed = np.random.default_rng()
    resumed.bit_generator.state = read.generator
    assert resumed.random() == np.random.default_rng(3).random()


def test_the_same_state_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        checkpoint.write(tmp_path / folder, make())
    first, second = (tmp_path / folder / "000003-000002.safetensors" for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_the_last_two_are_kept_and_later_ones_left_alone(tmp_path):
    for position in [(9, 0), (1, 0), (2, 0), (2, 7), (3, 0)]:
        checkpoint.write(tmp_path, make(*position))
    assert names(tmp_path) == [f"{name}.safetensors" for name in ("000002-000007", "000003-000000", "000009-000000")]


def test_the_newest_at_or_before_the_epochs_asked_for(tmp_path):
    for position in [(2, 0), (2, 5)]:
        checkpoint.write(tmp_path, make(*position))
    checkpoint.write(tmp_path, make(4, 0))
    assert checkpoint.latest(tmp_path, 4).epoch == 4
    found = checkpoint.latest(tmp_path, 3)
    assert (found.epoch, found.step) == (2, 5)
    assert checkpoint.latest(tmp_path, 1) is None
    assert checkpoint.latest(tmp_path / "absent", 1) is None


def truncate(content):
    return content[: len(content) // 2]


def flip(content):
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize("damage", [truncate, flip, lambda content: b"", lambda content: b"\xff" * 64])
def test_a_damaged_one_is_passed_over_with_one_warning(tmp_path, caplog, damage):
    checkpoint.write(tmp_path, make(1, 0))
    checkpoint.write(tmp_path, make(2, 0))
    path = tmp_path / "000002-000000.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert checkpoint.latest(tmp_path, 5).epoch == 1
    [record] = caplog.records
    assert "000002-000000.safetensors is damaged" in record.getMessage()


def test_what_a_killed_writer_left_is_no_checkpoint(tmp_path):
    checkpoint.write(tmp_path, make(1, 0))
    (tmp_path / "000001-000000.safetensors.new").write_bytes(b"half")
    assert checkpoint.latest(tmp_path, 5).epoch == 1
    checkpoint.write(tmp_path, make(2, 0))
    assert not (tmp_path / "000001-000000.safetensors.new").exists()


def test_a_place_that_takes_no_file_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"file.*cannot be written"):
        checkpoint.write(tmp_path / "file", make())
