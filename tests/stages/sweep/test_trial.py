"""What one trial is: its first epochs, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from data.store.folder import Store
from stages.config import RunConfig, TrainConfig
from stages.pipeline import begun
from stages.pipeline import run as pipeline
from stages.pipeline.decide import decide
from stages.sweep.trial import Trial

SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {},
    "a cosine to the end": {"schedule": "cosine"},
    "a cosine to before the end": {"schedule": "cosine", "decay_epochs": 7},
    "step": {"schedule": "step", "decay_epochs": 2},
    "plateau": {"schedule": "plateau", "decay_epochs": 2},
    "an end after so many tokens": {"max_tokens": 100_001},
}


def trial(**train: Any) -> Trial:
    return Trial(RunConfig(train=TrainConfig(**train)), {})


def test_the_first_epochs_of_a_trial_go_on_towards_its_last_one() -> None:
    whole = trial(epochs=40, schedule="cosine", hidden_size=8)
    assert whole.first_epochs(40) == whole.config
    assert whole.first_epochs(10).train == TrainConfig(epochs=10, schedule="cosine", hidden_size=8, decay_epochs=40)
    assert trial(epochs=40).first_epochs(10).train == TrainConfig(epochs=10)
    assert trial(epochs=30, max_tokens=10**6).first_epochs(3).train == TrainConfig(epochs=3, max_tokens=100_002)


@pytest.fixture
def identity(trials: Callable[..., list[Trial]], walk: Callable[[RunConfig], pipeline.Walk], store: Store) -> Any:
    """What a training is but for its length."""
    (tiny,) = trials("train.seed=0")
    upstream = walk(tiny.config).upstream("train")

    def of(train: TrainConfig) -> str:
        components = decide("train", tiny.config.model_copy(update={"train": train}), upstream, store).components
        (identity,) = begun.identities(train, components)
        return identity

    return of


def test_the_first_epochs_of_a_trial_are_those_of_the_whole_training_whatever_its_schedule(
    identity: Callable[[TrainConfig], str],
) -> None:
    for schedule in SCHEDULES.values():
        whole = trial(epochs=10, **schedule)
        assert identity(whole.first_epochs(5).train) == identity(whole.config.train)
    by_schedule = {identity(TrainConfig(epochs=10, **schedule)) for schedule in SCHEDULES.values()}
    assert len(by_schedule) == len(SCHEDULES)
    assert identity(TrainConfig(epochs=5, schedule="cosine")) != identity(TrainConfig(epochs=10, schedule="cosine"))
    assert identity(TrainConfig(schedule="step", decay_epochs=3)) != identity(TrainConfig(**SCHEDULES["step"]))


def test_a_figure_that_is_not_finite_is_null() -> None:
    failed = Trial(RunConfig(), {"train.learning_rate": 1e30}, curve=[2.5, math.inf], bits=2.5, perplexity=5.7)
    failed.fail("it burst")
    said = failed.json()
    assert (said["state"], said["reason"], said["epochs"]) == ("failed", "it burst", 2)
    assert (said["bits_per_character"], said["perplexity"], said["model"]) == (None, None, None)
    assert said["valid_bits"] == [2.5, None]
