"""How the learning rate goes and when training ends, as functions of what has been."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from data.errors import ConfigError
from stages.config import TrainConfig
from stages.pipeline.settings import load
from stages.training.schedule import averaging, best_epoch, exhausted, horizon, learning_rate


def rates(positions: Sequence[float], valid_losses: Sequence[float] = (), **changes: Any) -> list[float]:
    config = TrainConfig(learning_rate=2.0, epochs=10, **changes)
    return [learning_rate(config, position, valid_losses) for position in positions]


def test_constant() -> None:
    assert rates([0.1, 5, 9.9]) == [2.0, 2.0, 2.0]


def test_step_falls_every_so_many_epochs() -> None:
    found = rates([0.5, 2.99, 3.0, 5.5, 6.1], schedule="step", decay_epochs=3, decay_factor=0.1)
    assert found == pytest.approx([2, 2, 0.2, 0.2, 0.02])


def test_cosine_falls_to_zero_at_its_end() -> None:
    assert rates([0, 2.5, 5, 10], schedule="cosine") == pytest.approx([2, 1 + math.sqrt(0.5), 1, 0])
    assert rates([2.5, 5, 8], schedule="cosine", decay_epochs=5) == pytest.approx([1, 0, 0])


def test_warm_up_rises_to_the_height_whatever_the_schedule() -> None:
    assert rates([0.5, 1, 2, 3], warmup_epochs=2) == pytest.approx([0.5, 1, 2, 2])
    assert rates([1, 2, 6, 10], schedule="cosine", warmup_epochs=2) == pytest.approx([1, 2, 1, 0])


def test_the_horizon_is_the_end_of_a_cosine_and_nothing_else() -> None:
    assert horizon(TrainConfig(epochs=10, schedule="cosine")) == 10
    assert horizon(TrainConfig(epochs=10, schedule="cosine", decay_epochs=20)) == 20
    assert horizon(TrainConfig(epochs=10)) is None
    assert horizon(TrainConfig(epochs=10, schedule="step", decay_epochs=2)) is None


def test_the_average_favours_the_late_steps() -> None:
    config = TrainConfig(averaging=9)
    assert averaging(config, 1) == 1, "the initial weights have no place in it"
    assert averaging(config, 11) == 0.5
    late = np.prod([1 - averaging(config, number) for number in range(901, 1001)])
    assert late == pytest.approx(0.9**10, rel=0.01), "what the steps before the last tenth weigh"
    assert averaging(TrainConfig(averaging=0), 500) == 1


@pytest.mark.parametrize(
    ("losses", "times"),
    [
        ([], 0),
        ([3, 2, 1], 0),
        ([3, 2, 2, 2], 1),
        ([3, 2, 2.5, 2.5, 2.5], 1),
        ([3, 2, 2.5, 2.5, 2.5, 2.5], 2),
        ([3, 2, 2.5, 1, 1.5], 0),
        ([3, 2, 2.5, 2.5, 1, 1.5, 1.5], 2),
    ],
)
def test_plateau_falls_when_validation_has_not_improved(losses: list[float], times: int) -> None:
    [rate] = rates([9], losses, schedule="plateau", decay_epochs=2, decay_factor=0.5)
    assert rate == 2 * 0.5**times


def test_the_best_epoch_is_the_first_of_the_lowest() -> None:
    assert best_epoch([3, 1, 2, 1]) == 2
    assert best_epoch([math.nan, 2]) == 2
    assert best_epoch([math.nan]) == best_epoch([]) == 0


def test_patience_ends_after_so_many_epochs_without_improvement() -> None:
    config = TrainConfig(patience=2)
    assert not exhausted(config, [])
    assert not exhausted(config, [3, 2, 2.5])
    assert exhausted(config, [3, 2, 2.5, 2])
    assert not exhausted(config, [3, 2, 2.5, 1.9])
    assert not exhausted(TrainConfig(), [1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["train.schedule=step"], "train: schedule=step needs decay_epochs of 1 or more"),
        (["train.schedule=plateau", "train.decay_epochs=3", "train.patience=3"], "patience has to be more than"),
        (["train.tie_weights=true"], "tie_weights needs an embedding_size of hidden_size, 160, not 32"),
        (["train.output_dropout=1"], "train.output_dropout: '1' does not fit"),
        (["train.bptt_keep=0"], "train.bptt_keep: '0' does not fit"),
        (["train.optimizer=lion"], "train.optimizer: 'lion' does not fit"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(assignments=settings)
    assert sentence in str(caught.value)
