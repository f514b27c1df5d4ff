"""How the learning rate and the average go, and when there is nothing more to learn: functions, with no state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stages.config import TrainConfig


def learning_rate(config: TrainConfig, position: float, valid_losses: Sequence[float]) -> float:
    """The learning rate of a step.

    Args:
        config: the schedule.
        position: of the step, in epochs from the start.
        valid_losses: of the epochs before it.
    """
    warm = min(position / config.warmup_epochs, 1.0) if config.warmup_epochs else 1.0
    return config.learning_rate * warm * _decay(config, position, valid_losses)


def horizon(config: TrainConfig) -> int | None:
    """The epochs over which a cosine falls; None where the learning rate does not depend on how many there are.

    Two trainings that differ in ``epochs`` alone begin alike if their horizons are equal.
    """
    return (config.decay_epochs or config.epochs) if config.schedule == "cosine" else None


def part(config: TrainConfig) -> int:
    """Tokens of each of the parts that `TrainConfig.max_tokens` is cut into; 0 where there is no such bound.

    Two trainings that differ in ``epochs`` and ``max_tokens`` alone begin alike if their parts are equal as well.
    """
    return -(-config.max_tokens // config.epochs)


def called(config: TrainConfig) -> str:
    """What people are told an epoch is: with `TrainConfig.max_tokens` it need not be a pass over the split."""
    return "part" if config.max_tokens else "epoch"


def averaging(config: TrainConfig, number: int) -> float:
    """α of the weights' running average after a step, a ← a + α (w - a): (η + 1) / (η + t), where t is its number.

    Polynomial-decay averaging (Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", ICML
    2013), `TrainConfig.averaging` being its η. At a constant learning rate the last step's weights suit the last
    minibatches: the book's model ends at a perplexity of 1.17 over its whole training split, its average at 1.03.
    """
    eta = config.averaging
    return (eta + 1) / (eta + number) if eta else 1.0


def _decay(config: TrainConfig, position: float, valid_losses: Sequence[float]) -> float:
    """What the learning rate is multiplied by after warm-up."""
    if config.schedule == "step":
        return config.decay_factor ** (int(position) // config.decay_epochs)
    if config.schedule == "plateau":
        return config.decay_factor ** _plateaus(valid_losses, config.decay_epochs)
    end = horizon(config)
    if end is None:
        return 1.0
    # Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts.
    falling = end - config.warmup_epochs
    passed = (position - config.warmup_epochs) / falling if falling > 0 else 1.0
    return (1 + math.cos(math.pi * min(max(passed, 0.0), 1.0))) / 2


def best_epoch(valid_losses: Sequence[float]) -> int:
    """The first epoch, counted from 1, with the lowest validation loss; 0 where there is none."""
    losses = [(loss, epoch) for epoch, loss in enumerate(valid_losses, 1) if not math.isnan(loss)]
    return min(losses)[1] if losses else 0


def exhausted(config: TrainConfig, valid_losses: Sequence[float]) -> bool:
    """Whether the validation loss has not improved for as long as the configuration has patience."""
    return bool(config.patience) and len(valid_losses) - best_epoch(valid_losses) >= config.patience


def _plateaus(valid_losses: Sequence[float], epochs: int) -> int:
    """How many times the loss has not improved for so many epochs in a row, each counted anew from the last time."""
    best, waited, plateaus = math.inf, 0, 0
    for loss in valid_losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == epochs:
            waited, plateaus = 0, plateaus + 1
    return plateaus
