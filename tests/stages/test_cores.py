"""How many cores a training is told to use."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import wraps

import pytest

from data.store import Store
from stages import pipeline
from stages.config import TrainConfig, load
from stages.lm import cores


@pytest.mark.parametrize(
    ("cell", "hidden_size", "expected"),
    [("rnn", 256, 1), ("lstm", 256, 1), ("rnn", 512, 1), ("lstm", 512, 2), ("rnn", 1024, 2), ("lstm", 2048, 8)],
)
def test_a_large_recurrence_is_worth_more_cores(monkeypatch, cell, hidden_size, expected):
    monkeypatch.setattr(cores, "available", lambda: 8)
    config = TrainConfig(cell=cell, hidden_size=hidden_size)
    assert cores.suited(config) == expected
    monkeypatch.setattr(cores, "available", lambda: 1)
    assert cores.suited(config) == 1


def test_mxnet_is_told_unless_the_user_has(monkeypatch):
    config = TrainConfig(cell="lstm", hidden_size=512)
    monkeypatch.setattr(cores, "available", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with cores.told(config):
        assert os.environ["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with cores.told(config):
        assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_a_training_runs_with_what_suits_it_and_leaves_no_trace(monkeypatch, tiny):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "suited", lambda config: 7)
    stage = pipeline.STAGES["train"]
    seen = []

    @wraps(stage.function)
    def train(*arguments, **named):
        seen.append(os.environ["OMP_NUM_THREADS"])
        return stage.function(*arguments, **named)

    monkeypatch.setitem(pipeline.STAGES, "train", replace(stage, function=train))
    store = Store(tiny.parent / "store")
    list(pipeline.run(load(str(tiny)), store, lambda name: lambda *call: None, until="train"))
    assert seen == ["7"]
    assert "OMP_NUM_THREADS" not in os.environ
