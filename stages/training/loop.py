"""The training loop: minibatches into steps, steps into an engine, figures into a history; checkpoints now and then.

It knows no engine, and what it decides, it decides from the configuration and from what has been: an interrupted
training that goes on gives the same bytes as one that was not interrupted.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

import numpy as np

from data.errors import TrainingError
from stages.lm import metrics
from stages.training import checkpoint, dropout, minibatches, schedule
from stages.training.checkpoint import Totals, TrainState
from stages.training.engine import EngineState, Step
from stages.training.minibatches import Minibatches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from data.progress import Progress, Watch
    from data.tables.tokens import Ids
    from stages.config import TrainConfig
    from stages.lm.parameters import Parameters
    from stages.training.engine import Engine, Figures, Recipe

logger = logging.getLogger(__name__)

_SECONDS_PER_CALL = 0.5
"""How long an engine is given steps for at once: more are not faster, and Ctrl-C has to wait for them."""


class Loop:
    """One training; `run` brings it to its end.

    Args:
        config: how it is trained.
        recipe: what the engine was built from.
        engine: freshly built; it is given its state here, the newest checkpoint's or the initial weights.
        learnt: the ids of the training split.
        held_out: the ids of the validation split.
        checkpoints: the folder where training goes on from.
    """

    def __init__(
        self, config: TrainConfig, recipe: Recipe, engine: Engine, learnt: Ids, held_out: Ids, checkpoints: Path
    ) -> None:
        self.config, self.architecture, self.engine = config, recipe.architecture, engine
        self.tokens, self.seconds = 0, 0.0
        """What was trained on here, and how long that took without validation and checkpoints."""
        self.part = part if (part := schedule.part(config)) < len(learnt) else 0
        """Tokens of what counts as an epoch, where that is a part of a pass over the split; else 0."""
        # More of a long split would take longer to measure than the part took to train.
        self._held_out = held_out[: max(self.part // 10, minibatches.AT_ONCE)] if self.part else held_out
        self._learnt, self._checkpoints = learnt, checkpoints
        self._steps_per_call = 1
        found = checkpoint.latest(checkpoints, config.epochs)
        if found and not found[1].fits(recipe):
            logger.warning("the checkpoints in %s are another model's: training begins anew", checkpoints)
            found = None
        self.state, engine_state = found or _beginning(config, recipe)
        engine.restore(engine_state)
        if found and not self.done:
            called = schedule.called(config)
            logger.info("training goes on in %s %d of %d", called, self.state.epoch + 1, config.epochs)

    @property
    def done(self) -> bool:
        """Whether the last epoch is over, or patience with the validation loss."""
        return self.state.epoch >= self.config.epochs or schedule.exhausted(self.config, self._valid_losses)

    def weights(self) -> Parameters:
        """The weights that come out: the average, where there is patience as it was after the best epoch."""
        return self.state.best or self.engine.state().averages

    def run(self, progress: Progress, received: Sequence[int], watch: Watch | None = None) -> None:
        """Train to the end, or until ``received`` holds the signal that asks to stop; save either way.

        Raises:
            StoreError: a disk that cannot take a checkpoint.
            TrainingError: a loss, a gradient or a weight that is not finite.
        """
        config, state, policy = self.config, self.state, checkpoint.Policy()
        if watch and state.epoch:
            watch(state.history, math.nan)
        while not self.done and not received:
            rng = np.random.Generator(np.random.PCG64())
            rng.bit_generator.state = state.generator
            reading = Minibatches(self._learnt, config.batch_size, config.num_steps, config.partition, rng)
            while state.index < len(reading) and not self.done:
                learning_rate = self._train(reading)
                progress(
                    min(self._position(reading, 0), config.epochs),
                    config.epochs,
                    f"{schedule.called(config)} {state.epoch + 1:,} of {config.epochs:,} · "
                    f"perplexity {metrics.perplexity(state.totals.loss / state.totals.tokens):.2f} · "
                    f"{self.tokens / self.seconds:,.0f} tokens/s",
                )
                if self._position(reading, 0.5) >= state.epoch + 1:
                    self._end_epoch(learning_rate)
                    if watch:
                        watch(state.history, self.tokens / self.seconds)
                if received or policy.due():  # a pass may take hours; it is taken up again as by another process
                    break
            if state.index >= len(reading):
                state.index, state.generator = 0, rng.bit_generator.state
            if self.done or received or policy.due():
                with policy.measured():
                    self._save()
        if state.epoch < config.epochs and self.done:
            best, called = schedule.best_epoch(self._valid_losses), schedule.called(config)
            logger.info("the validation loss has not improved since %s %d: its weights are kept", called, best)

    def _train(self, reading: Minibatches) -> float:
        """Train the next minibatches of an epoch, as many as one call is good for → the last one's learning rate."""
        began = time.perf_counter()
        learning_rate, sizes = 0.0, []

        def drawn() -> Iterator[Step]:
            nonlocal learning_rate
            left = len(reading) - self.state.index
            for ahead in range(min(self._steps_per_call, left)):
                # At the middle of the step, so that neither the first nor the last has a learning rate of zero.
                position = self._position(reading, ahead + 0.5)
                if position >= self.state.epoch + 1:
                    return
                step = self._step(reading, ahead, position)
                learning_rate = step.learning_rate
                sizes.append(step.inputs.size)
                yield step

        for figures, size in zip(self.engine.run(drawn()), sizes, strict=True):
            self._count(figures, size)
        seconds = time.perf_counter() - began
        self._steps_per_call = max(1, int(_SECONDS_PER_CALL * len(sizes) / seconds))
        self.tokens += sum(sizes)
        self.seconds += seconds
        return learning_rate

    def _step(self, reading: Minibatches, ahead: int, position: float) -> Step:
        """What the engine does after so many more minibatches, at this position."""
        index, number = self.state.index + ahead, self.state.steps + 1 + ahead
        inputs, targets = reading[index]
        return Step(
            inputs=inputs,
            targets=targets,
            masks=dropout.masks(self.config, self.architecture, inputs.shape[1], number),
            learning_rate=schedule.learning_rate(self.config, position, self._valid_losses),
            number=number,
            reset_state=index == 0 or self.config.partition == "random",
            averaging=schedule.averaging(self.config, number),
        )

    def _position(self, reading: Minibatches, ahead: float) -> float:
        """How far training is after so many more minibatches of a pass, in epochs from the start."""
        config, state = self.config, self.state
        if self.part:
            return (state.tokens + ahead * config.batch_size * config.num_steps) / self.part
        return state.epoch + (state.index + ahead) / len(reading)

    def _count(self, figures: Figures, tokens: int) -> None:
        """Add one minibatch's figures to the epoch's."""
        if not math.isfinite(figures.loss):
            raise self._diverged("the loss")
        if not math.isfinite(figures.grad_norm):
            raise self._diverged("the gradient's norm")
        totals = self.state.totals
        totals.loss += figures.loss * tokens
        totals.tokens += tokens
        totals.grad_norm += figures.grad_norm
        totals.grad_norm_max = max(totals.grad_norm_max, figures.grad_norm)
        self.state.step += 1
        self.state.index += 1
        self.state.steps += 1
        self.state.tokens += tokens

    def _end_epoch(self, learning_rate: float) -> None:
        """Measure on the validation split, add to the history, and keep the weights if they are the best."""
        config, state = self.config, self.state
        figures = {
            "train_loss": state.totals.loss / state.totals.tokens,
            "valid_loss": math.nan,
            "learning_rate": learning_rate,
            "grad_norm_mean": state.totals.grad_norm / state.step,
            "grad_norm_max": state.totals.grad_norm_max,
        }
        if len(self._held_out) > 1:
            figures["valid_loss"] = self.engine.loss(minibatches.whole(self._held_out))
        for name, figure in figures.items():
            state.history[name].append(figure)
        state.epoch, state.step, state.totals = state.epoch + 1, 0, Totals()
        if config.patience and schedule.best_epoch(self._valid_losses) == state.epoch:
            state.best = self.engine.state().averages

    def _save(self) -> None:
        engine_state = self.engine.state()
        # The loss tells of the weights before its step only.
        if not all(np.isfinite(array).all() for array in engine_state.parameters.values()):
            raise self._diverged("a weight")
        checkpoint.write(self._checkpoints, self.state, engine_state)

    @property
    def _valid_losses(self) -> list[float]:
        """Of the epochs that are complete."""
        return self.state.history["valid_loss"]

    def _diverged(self, what: str) -> TrainingError:
        rate, clip = self.config.learning_rate, self.config.clip_norm
        clipping = f"a smaller train.clip_norm than {clip:g}" if clip else "train.clip_norm=1, for 0 never clips"
        return TrainingError(
            f"{what} is no longer finite in {schedule.called(self.config)} {self.state.epoch + 1:,}: "
            f"try a smaller train.learning_rate than {rate:g}, or {clipping}"
        )


def _beginning(config: TrainConfig, recipe: Recipe) -> tuple[TrainState, EngineState]:
    """Where a training begins, as its seed has it."""
    # Not the random numbers that the weights are drawn from.
    bits = np.random.PCG64(np.random.SeedSequence(config.seed, spawn_key=(1,)))
    weights = recipe.architecture.initial(config.initializer, config.seed)
    return TrainState(bits.state), EngineState.initial(recipe, weights)
