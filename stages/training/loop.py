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

    from data.progress import Progress
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
        self._learnt, self._held_out, self._checkpoints = learnt, held_out, checkpoints
        self._steps_per_call = 1
        found = checkpoint.latest(checkpoints, config.epochs)
        if found and not found[1].fits(recipe):
            logger.warning("the checkpoints in %s are another model's: training begins anew", checkpoints)
            found = None
        self.state, engine_state = found or _beginning(config, recipe)
        engine.restore(engine_state)
        if found and not self.done:
            logger.info("training goes on in epoch %d of %d", self.state.epoch + 1, config.epochs)

    @property
    def done(self) -> bool:
        """Whether the last epoch is over, or patience with the validation loss."""
        return self.state.epoch >= self.config.epochs or schedule.exhausted(self.config, self._valid_losses)

    def weights(self) -> Parameters:
        """The weights that come out: the average, where there is patience as it was after the best epoch."""
        return self.state.best or self.engine.state().averages

    def run(self, progress: Progress, received: Sequence[int]) -> None:
        """Train to the end, or until ``received`` holds the signal that asks to stop; save either way.

        Raises:
            StoreError: a disk that cannot take a checkpoint.
            TrainingError: a loss, a gradient or a weight that is not finite.
        """
        config, state, policy = self.config, self.state, checkpoint.Policy()
        while not self.done and not received:
            rng = np.random.Generator(np.random.PCG64())
            rng.bit_generator.state = state.generator
            epoch = Minibatches(self._learnt, config.batch_size, config.num_steps, config.partition, rng)
            while state.step < len(epoch):
                self._train(epoch)
                progress(
                    state.epoch + state.step / len(epoch),
                    config.epochs,
                    f"epoch {state.epoch + 1:,} of {config.epochs:,} · "
                    f"perplexity {metrics.perplexity(state.totals.loss / state.totals.tokens):.2f} · "
                    f"{self.tokens / self.seconds:,.0f} tokens/s",
                )
                if received or policy.due():  # an epoch may take hours; it is taken up again as by another process
                    break
            if state.step == len(epoch):
                self._end_epoch(self._learning_rate(epoch, len(epoch) - 1))
                state.generator = rng.bit_generator.state
                if not self.done and not received and not policy.due():
                    continue
            with policy.measured():
                self._save()
        if state.epoch < config.epochs and self.done:
            best = schedule.best_epoch(self._valid_losses)
            logger.info("the validation loss has not improved since epoch %d: its weights are kept", best)

    def _train(self, epoch: Minibatches) -> None:
        """Train the next minibatches of an epoch, as many as one call is good for."""
        began = time.perf_counter()
        first = self.state.step
        sizes: list[int] = []

        def drawn() -> Iterator[Step]:
            for index in range(first, min(first + self._steps_per_call, len(epoch))):
                step = self._step(epoch, index)
                sizes.append(step.inputs.size)
                yield step

        for figures, size in zip(self.engine.run(drawn()), sizes, strict=True):
            self._count(figures, size)
        seconds = time.perf_counter() - began
        self._steps_per_call = max(1, int(_SECONDS_PER_CALL * len(sizes) / seconds))
        self.tokens += sum(sizes)
        self.seconds += seconds

    def _step(self, epoch: Minibatches, index: int) -> Step:
        """What the engine does with the minibatch of this number, from 0."""
        inputs, targets = epoch[index]
        number = self.state.steps + 1 + index - self.state.step
        return Step(
            inputs=inputs,
            targets=targets,
            masks=dropout.masks(self.config, self.architecture, inputs.shape[1], number),
            learning_rate=self._learning_rate(epoch, index),
            number=number,
            reset_state=index == 0 or self.config.partition == "random",
            averaging=schedule.averaging(self.config, number),
        )

    def _learning_rate(self, epoch: Minibatches, index: int) -> float:
        # At the middle of the step, so that neither the first nor the last has a rate of zero.
        position = self.state.epoch + (index + 0.5) / len(epoch)
        return schedule.learning_rate(self.config, position, self._valid_losses)

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
        self.state.steps += 1

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
            f"{what} is no longer finite in epoch {self.state.epoch + 1:,}: "
            f"try a smaller train.learning_rate than {rate:g}, or {clipping}"
        )


def _beginning(config: TrainConfig, recipe: Recipe) -> tuple[TrainState, EngineState]:
    """Where a training begins, as its seed has it."""
    # Not the random numbers that the weights are drawn from.
    bits = np.random.PCG64(np.random.SeedSequence(config.seed, spawn_key=(1,)))
    weights = recipe.architecture.initial(config.initializer, config.seed)
    return TrainState(bits.state), EngineState.initial(recipe, weights)
