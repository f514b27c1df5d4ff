"""How many cores a training uses."""

from __future__ import annotations

import os
from typing import Any

import pytest

from data.errors import ConfigError
from stages.config import TrainConfig
from stages.lm.parameters import Architecture
from stages.training import cores


@pytest.mark.parametrize(
    ("cell", "hidden_size", "vocab_size", "expected"),
    [
        ("rnn", 256, 66, 1),
        ("lstm", 256, 66, 1),
        ("rnn", 512, 66, 1),
        ("lstm", 512, 66, 2),
        ("rnn", 1024, 66, 2),
        ("lstm", 2048, 66, 8),
        ("lstm", 256, 4500, 2),
        ("rnn", 256, 1000, 1),
    ],
)
def test_a_large_recurrence_or_vocabulary_is_worth_more_cores(
    monkeypatch: pytest.MonkeyPatch, cell: Any, hidden_size: int, vocab_size: int, expected: int
) -> None:
    monkeypatch.setattr(cores, "available", lambda: 8)
    architecture = Architecture.of(TrainConfig(cell=cell, hidden_size=hidden_size), vocab_size)
    assert cores.suited(architecture) == expected
    monkeypatch.setattr(cores, "available", lambda: 1)
    assert cores.suited(architecture) == 1


def test_mxnet_finds_the_number_unless_the_user_has_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = Architecture.of(TrainConfig(cell="lstm", hidden_size=512), 66)
    monkeypatch.setattr(cores, "available", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with cores.set_for(architecture):
        assert os.environ["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with cores.set_for(architecture):
        assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("value", ["x", "", "0", "-1", "1.5", "2,2", "100000", "9" * 30, "²"])
def test_what_mxnet_would_abort_for_is_a_sentence(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    architecture = Architecture.of(TrainConfig(), 66)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.raises(ConfigError, match=r"^MXNet cannot take .* OMP_NUM_THREADS .*: set it to 1 to 1,024, or unset"):
        cores.set_for(architecture).__enter__()
    monkeypatch.setenv("OMP_NUM_THREADS", " 2")
    with cores.set_for(architecture):
        assert os.environ["OMP_NUM_THREADS"] == " 2"
