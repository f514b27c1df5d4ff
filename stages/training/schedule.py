"""How the learning rate goes, and when there is nothing more to learn: functions of what has been, with no state."""

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
    return config.learning_rate * warm * _share(config, position, valid_losses)


def _share(config: TrainConfig, position: float, valid_losses: Sequence[float]) -> float:
    """Of the full rate, after warm-up."""
    if config.schedule == "step":
        return config.decay_factor ** (int(position) // config.decay_epochs)
    if config.schedule == "plateau":
        return config.decay_factor ** _plateaus(valid_losses, config.decay_epochs)
    if config.horizon is None:
        return 1.0
    # Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts.
    falling = config.horizon - config.warmup_epochs
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
