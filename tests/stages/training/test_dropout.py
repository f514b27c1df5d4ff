"""The masks of a step: what is dropped, how much of it, and that it follows from the seed and the step alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stages.config import TrainConfig
from stages.lm.parameters import Architecture
from stages.training import dropout

DROPOUTS: dict[str, Any] = {"input_dropout": 0.3, "hidden_dropout": 0.4, "output_dropout": 0.5, "weight_dropout": 0.3}


def test_masks_drop_what_is_asked_for_and_keep_the_mean() -> None:
    config = TrainConfig(cell="lstm", layers=2, hidden_size=40, batch_size=50, bptt_keep=0.8, **DROPOUTS)
    masks = dropout.masks(config, Architecture.of(config, 30), 35, 1)
    shapes = {
        "input": (1, 50, 30),
        "hidden1": (1, 50, 40),
        "output": (1, 50, 40),
        "recurrent0": (160, 40),
        "recurrent1": (160, 40),
        "gradient": (35, 50, 1),
    }
    assert {name: mask.shape for name, mask in masks.items()} == shapes
    assert dropout.names(config, Architecture.of(config, 30)) == tuple(shapes)
    dropped = {"input": 0.3, "hidden1": 0.4, "output": 0.5, "recurrent0": 0.3, "gradient": 0.2}
    for name, probability in dropped.items():
        assert (masks[name] == 0).mean() == pytest.approx(probability, abs=0.05)
        assert set(np.unique(masks[name])) == {np.float32(0), np.float32(1 / (1 - probability))}


def test_masks_follow_from_the_seed_and_the_step() -> None:
    config = TrainConfig(output_dropout=0.5)
    architecture = Architecture.of(config, 30)

    def drawn(number: int, **changes: Any) -> bytes:
        return dropout.masks(config.model_copy(update=changes), architecture, 35, number)["output"].tobytes()

    assert drawn(3) == drawn(3)
    assert len({drawn(3), drawn(4), drawn(3, seed=1)}) == 3


def test_what_is_not_variational_differs_from_step_to_step() -> None:
    config = TrainConfig(output_dropout=0.5, variational=False)
    mask = dropout.masks(config, Architecture.of(config, 30), 35, 1)["output"]
    assert mask.shape == (35, 32, 256)
    assert (mask[0] != mask[1]).any()
