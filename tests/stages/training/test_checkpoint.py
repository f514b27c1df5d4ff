"""Checkpoints come back as they were written, and a damaged one is passed over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from data.errors import StoreError
from stages.training import checkpoint
from stages.training.checkpoint import FIGURES, Totals, TrainState
from stages.training.engine import EngineState


def make(epoch: int = 3, step: int = 2, value: float = 1.5) -> tuple[TrainState, EngineState]:
    rng = np.random.default_rng(epoch)
    train = TrainState(
        generator=rng.bit_generator.state,
        epoch=epoch,
        step=step,
        steps=17,
        totals=Totals(loss=0.1 + 0.2, tokens=70),
        history={name: [number / 4, np.nan, *[1.0] * epoch][:epoch] for number, name in enumerate(FIGURES, 5)},
        best={"dense.weight": np.full((2, 3), value * 2, np.float32)},
    )
    engine = EngineState(
        parameters={"dense.weight": np.full((2, 3), value, np.float32), "dense.bias": np.zeros(2, np.float32)},
        averages={"dense.weight": np.full((2, 3), value / 2, np.float32), "dense.bias": np.ones(2, np.float32)},
        moments={"mean/dense.bias": np.full(2, 0.25, np.float32)},
        recurrent={"hidden": np.ones((1, 4, 3), np.float32)},
    )
    return train, engine


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def position(folder: Path, epochs: int) -> tuple[int, int] | None:
    found = checkpoint.latest(folder, epochs)
    return (found[0].epoch, found[0].step) if found else None


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_everything_comes_back(tmp_path: Path, epoch: int) -> None:
    train, engine = make(epoch)
    checkpoint.write(tmp_path / "new", train, engine)
    found = checkpoint.latest(tmp_path / "new", 10)
    assert names(tmp_path / "new") == [f"{epoch:06}-000002.safetensors"]
    assert found
    for written, read in zip((train, engine), found, strict=True):
        assert type(written) is type(read)
        np.testing.assert_equal(vars(read), vars(written))
    resumed = np.random.default_rng()
    resumed.bit_generator.state = found[0].generator
    assert resumed.random() == np.random.default_rng(epoch).random()


def test_a_file_is_laid_out_for_any_reader(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, *make())
    [path] = tmp_path.iterdir()
    tensors = load_file(path)
    assert tensors["history"].shape == (3, len(FIGURES))
    assert set(tensors) == {
        "history",
        *(f"{kind}/dense.{name}" for kind in ("parameters", "averages") for name in ("weight", "bias")),
        "best/dense.weight",
        "moments/mean/dense.bias",
        "state/hidden",
    }


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        checkpoint.write(tmp_path / folder, *make())
    first, second = (tmp_path / folder / "000003-000002.safetensors" for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_the_last_two_are_kept_and_later_ones_left_alone(tmp_path: Path) -> None:
    for at in [(9, 0), (1, 0), (2, 0), (2, 7), (3, 0)]:
        checkpoint.write(tmp_path, *make(*at))
    assert names(tmp_path) == [f"{name}.safetensors" for name in ("000002-000007", "000003-000000", "000009-000000")]


def test_the_newest_at_or_before_the_epochs_asked_for(tmp_path: Path) -> None:
    for at in [(2, 0), (2, 5)]:
        checkpoint.write(tmp_path, *make(*at))
    checkpoint.write(tmp_path, *make(4, 0))
    assert position(tmp_path, 4) == (4, 0)
    assert position(tmp_path, 3) == (2, 5)
    assert position(tmp_path, 1) is None
    assert position(tmp_path / "absent", 1) is None


def test_one_is_due_when_the_last_was_a_fiftieth_of_the_time_since(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: now))
    policy = checkpoint.Policy()
    assert not policy.due(), "what began just now is soon done again"
    now += checkpoint.FIRST
    assert policy.due()
    with policy.measured():
        now += 2
    assert not policy.due()
    now += 99
    assert not policy.due()
    now += 1
    assert policy.due()


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize("damage", [truncate, flip, lambda content: b"", lambda content: b"\xff" * 64])
def test_a_damaged_one_is_passed_over_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    checkpoint.write(tmp_path, *make(1, 0))
    checkpoint.write(tmp_path, *make(2, 0))
    path = tmp_path / "000002-000000.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert position(tmp_path, 5) == (1, 0)
    [record] = caplog.records
    assert "000002-000000.safetensors is damaged" in record.getMessage()


def test_what_a_killed_writer_left_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, *make(1, 0))
    (tmp_path / "000001-000000.safetensors.new").write_bytes(b"half")
    assert position(tmp_path, 5) == (1, 0)
    checkpoint.write(tmp_path, *make(2, 0))
    assert not (tmp_path / "000001-000000.safetensors.new").exists()


def test_a_place_that_takes_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"file.*cannot be written"):
        checkpoint.write(tmp_path / "file", *make())
