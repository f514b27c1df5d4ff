"""Train the model: epochs of minibatches, what they show, and checkpoints from which the same run goes on.

An interrupted run that is started again gives the same bytes as one that was not interrupted.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from data.errors import ConfigError, Interrupted, TrainingError
from data.tables.tokens import IndexTable, Minibatches, check_length
from stages.lm import metrics, parameters
from stages.lm.parameters import Architecture
from stages.training import checkpoint, dropout, schedule
from stages.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from data.progress import Progress
    from data.tables.tokens import Ids, Minibatch
    from stages.config import TrainConfig
    from stages.lm.parameters import Parameters
    from stages.training.device import Device

logger = logging.getLogger(__name__)

HISTORY = ("train_loss", "valid_loss", "learning_rate", "grad_norm_mean", "grad_norm_max")
"""The columns of the history as checkpoints hold it; a figure that there is not is not a number there."""
_NO_TOTALS = {"loss": 0.0, "tokens": 0, "grad_norm": 0.0, "grad_norm_max": 0.0}
_CHECKPOINT_SHARE = 0.02
"""Share of the time at most that checkpoints may cost."""
_SECONDS_AHEAD = 0.5
"""How long the device may be behind the loop: a longer queue is not faster, and Ctrl-C has to wait for it."""
_STEPS_AHEAD = 50


def train(
    config: TrainConfig, tokens: Path, out: Path, progress: Progress, checkpoints: Path, device: Device
) -> dict[str, float]:
    """Write ``model.safetensors``, ``config.json``, ``vocab.arrow`` and ``history.arrow`` into ``out``.

    The weights are an average over the steps, as `TrainConfig.averaging` says, and so is what the validation loss is
    measured on. With ``patience`` they are those of the best epoch.

    Args:
        config: the model and how it is trained.
        tokens: the folder of `tokenize`: ``tokens.arrow`` and ``vocab.arrow``.
        out: an empty folder.
        progress: told of epochs, counted from where this call took over.
        checkpoints: a folder that belongs to this configuration, whatever its ``epochs``, and to no other. The newest
            checkpoint there at or before ``config.epochs`` is where training goes on.
        device: where to compute.

    Returns:
        ``tokens_per_second`` over the training of this call; nothing where all of it had been done before.

    Raises:
        ConfigError: settings that ask for a validation loss where there is none.
        CorpusError: a training split that is too short for one minibatch.
        Interrupted: SIGINT or SIGTERM; a checkpoint holds all that was done.
        StoreError: inputs that are damaged, or a disk that cannot take a checkpoint.
        TrainingError: a loss or a gradient that is not finite.
    """
    table = IndexTable.open(tokens / "tokens.arrow")
    if device.why:
        where = f"the GPU {device.index}" if device.kind == "gpu" else "the CPU"
        logger.info("training on %s: %s", where, device.why)
    with _signals() as received:
        run = _Run(config, table, device, checkpoints)
        run.go(progress, received)
    if received:
        raise Interrupted(
            f"training was stopped in epoch {min(run.epoch + 1, config.epochs):,} of {config.epochs:,} and nothing is "
            "lost: the same command goes on from there",
            received[0],
        )
    _export(run, table, out)
    shutil.copyfile(tokens / "vocab.arrow", out / "vocab.arrow")
    return {"tokens_per_second": round(run.tokens / run.seconds)} if run.tokens else {}


class _Run:
    """One training run: where it stands, and how it goes on."""

    def __init__(self, config: TrainConfig, table: IndexTable, device: Device, checkpoints: Path) -> None:
        from stages.training.gluon import GluonEngine

        check_length(len(table.split("train")), config.batch_size, config.num_steps, config.partition)
        self.config = config
        self.architecture = Architecture.of(config, table.vocab_size)
        _check_memory(config, self.architecture)
        self.engine = GluonEngine(
            self.architecture,
            config.batch_size,
            config.optimizer,
            config.weight_decay,
            config.clip_norm,
            list(dropout.masks(config, self.architecture, 1, 0)),
            device,
        )
        self.epoch = 0
        """Epochs that are complete."""
        self.history: list[tuple[float, ...]] = []
        self.tokens, self.seconds = 0, 0.0
        """What was trained on here, and how long that took without validation and checkpoints."""
        self._ids, self._valid = table.split("train"), table.split("valid")
        self._streams = min(config.batch_size, (len(self._valid) - 1) // config.num_steps)
        """Rows that the validation split is read as; below 1 it is too short to measure."""
        if self._streams < 1 and (config.patience or config.schedule == "plateau"):
            asking = "patience" if config.patience else "schedule=plateau"
            raise ConfigError(
                f"train.{asking} needs a validation loss, and the validation split has {len(self._valid):,} tokens: "
                f"set tokenize.valid_share so that there are more than train.num_steps, {config.num_steps:,}"
            )
        self._checkpoints = checkpoints
        self._checkpoint_due = 0.0
        # Not the stream that the weights are drawn from.
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(config.seed, spawn_key=(1,))))
        self._step, self._totals = 0, dict(_NO_TOTALS)
        self._steps = 0
        """Minibatches in all, where `_step` counts those of the epoch under way."""
        self._rate = 0.0
        """The last step's learning rate."""
        self._best: dict[str, Any] = {}
        """The average as it was after the best epoch, where there is patience to look for it."""
        self._ahead = 1
        """Steps that the engine is given before their figures are asked for."""
        found = checkpoint.latest(checkpoints, config.epochs)
        if found:
            self._restore(found)
        else:
            self.engine.load_parameters(self.architecture.initial(config.initializer, config.seed))
        # As it is at the start of the epoch under way: what that epoch draws, a resumed run draws again.
        self._generator = self._rng.bit_generator.state

    @property
    def done(self) -> bool:
        """Whether the last epoch is over, or patience with the validation loss."""
        return self.epoch >= self.config.epochs or schedule.exhausted(self.config, self.history_of("valid_loss"))

    def published(self) -> Parameters:
        """The weights that come out."""
        return self._best or self.engine.averages()

    def go(self, progress: Progress, received: list[int]) -> None:
        """Train to the end, or until ``received`` holds the signal that asks to stop; save either way."""
        config, began_at = self.config, self.epoch
        while not self.done and not received:
            minibatches = Minibatches(self._ids, config.batch_size, config.num_steps, config.partition, self._rng)
            if self._step == 0:
                self.engine.reset_state()

            def report(share: float) -> None:
                perplexity = metrics.perplexity(self._totals["loss"] / self._totals["tokens"])
                progress(
                    self.epoch + share - began_at,  # of what is left to do here, so that the time left comes out right
                    config.epochs - began_at,
                    f"epoch {self.epoch + 1:,} of {config.epochs:,} · perplexity {perplexity:.2f} · "
                    f"{self.tokens / self.seconds:,.0f} tokens/s",
                )

            self._train(minibatches, report, received)
            if self._step == len(minibatches):
                self._finish_epoch()
                if not self.done and not received and time.monotonic() < self._checkpoint_due:
                    continue
            self._save()
        if self.epoch < config.epochs and self.done:
            best = schedule.best_epoch(self.history_of("valid_loss"))
            logger.info("the validation loss has not improved since epoch %d: its weights are kept", best)

    def _train(self, minibatches: Minibatches, report: Callable[[float], None], received: list[int]) -> None:
        """The rest of an epoch, or as much of it as comes before a signal.

        The engine answers before it has computed; its figures are asked for only now and then, so that it never waits.
        """
        valid_losses = self.history_of("valid_loss")
        while self._step < len(minibatches) and not received:
            began = time.perf_counter()
            figures: list[tuple[SupportsFloat, SupportsFloat, int]] = []
            ahead = minibatches[self._step : self._step + self._ahead]
            chance = [
                dropout.masks(self.config, self.architecture, inputs.shape[1], self._steps + number)
                for number, (inputs, _) in enumerate(ahead, 1)
            ]
            for number, (inputs, targets, masks) in enumerate(self.engine.upload(ahead, chance)):
                if self.config.partition == "random":
                    self.engine.reset_state()
                self._steps += 1
                # At the middle of the step, so that neither the first nor the last has a rate of zero.
                position = self.epoch + (self._step + number + 0.5) / len(minibatches)
                self._rate = schedule.learning_rate(self.config, position, valid_losses)
                figures.append((*self.engine.step(inputs, targets, masks, self._rate, self._steps), inputs.size))
                self.engine.average(self._share())
            for loss, norm, tokens in figures:
                self._count(float(loss), float(norm), tokens)
            seconds = time.perf_counter() - began
            self._ahead = max(1, min(_STEPS_AHEAD, int(_SECONDS_AHEAD * len(figures) / seconds)))
            self.tokens += sum(tokens for *_, tokens in figures)
            self.seconds += seconds
            report(self._step / len(minibatches))

    def _share(self) -> float:
        """How far the average moves towards the weights after a step.

        Polynomial-decay averaging (Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", ICML
        2013), ``averaging`` being its eta. At a constant learning rate the last step's weights suit the last
        minibatches: the book's model ends at a perplexity of 1.17 over its whole training split, its average at 1.03.
        """
        eta = self.config.averaging
        return (eta + 1) / (eta + self._steps) if eta else 1.0

    def history_of(self, figure: str) -> list[float]:
        """One column of the history, an entry per epoch."""
        return [row[HISTORY.index(figure)] for row in self.history]

    def _count(self, loss: float, norm: float, tokens: int) -> None:
        """Add one minibatch's figures to the epoch's."""
        if not math.isfinite(loss):
            raise self._diverged("the loss")
        if not math.isfinite(norm):
            raise self._diverged("the gradient's norm")
        self._totals["loss"] += loss * tokens
        self._totals["tokens"] += tokens
        self._totals["grad_norm"] += norm
        self._totals["grad_norm_max"] = max(self._totals["grad_norm_max"], norm)
        self._step += 1

    def _finish_epoch(self) -> None:
        config, totals = self.config, self._totals
        valid = math.nan
        if self._streams > 0:
            valid = self.engine.loss(_streams(self._valid, self._streams, config.num_steps))
        row = (totals["loss"] / totals["tokens"], valid, self._rate)
        self.history.append((*row, totals["grad_norm"] / self._step, totals["grad_norm_max"]))
        if config.patience and schedule.best_epoch(self.history_of("valid_loss")) == len(self.history):
            self._best = self.engine.averages()
        self.epoch, self._step, self._totals = self.epoch + 1, 0, dict(_NO_TOTALS)
        self._generator = self._rng.bit_generator.state

    def _save(self) -> None:
        began = time.monotonic()
        weights = self.engine.parameters()
        # The loss tells of the weights before its step only.
        if not all(np.isfinite(array).all() for array in weights.values()):
            raise self._diverged("a weight")
        state = Checkpoint(
            epoch=self.epoch,
            step=self._step,
            steps=self._steps,
            parameters=weights,
            averages=self.engine.averages(),
            best=self._best,
            moments=self.engine.moments(),
            state=self.engine.state(),
            generator=self._generator,
            totals=self._totals,
            history=np.array(self.history, np.float64).reshape(-1, len(HISTORY)),
        )
        checkpoint.write(self._checkpoints, state)
        ended = time.monotonic()
        self._checkpoint_due = ended + (ended - began) / _CHECKPOINT_SHARE

    def _restore(self, found: Checkpoint) -> None:
        self.engine.load_parameters(found.parameters)
        self.engine.load_averages(found.averages)
        self.engine.load_moments(found.moments)
        self._best = found.best
        self.engine.load_state(found.state)
        self._rng.bit_generator.state = found.generator
        self.epoch, self._step, self._steps, self._totals = found.epoch, found.step, found.steps, dict(found.totals)
        self.history = [tuple(row) for row in found.history.tolist()]
        if not self.done:
            logger.info("training goes on in epoch %d of %d", self.epoch + 1, self.config.epochs)

    def _diverged(self, what: str) -> TrainingError:
        rate, clip = self.config.learning_rate, self.config.clip_norm
        clipping = f"a smaller train.clip_norm than {clip:g}" if clip else "train.clip_norm=1, for 0 never clips"
        return TrainingError(
            f"{what} is no longer finite in epoch {self.epoch + 1:,}: try a smaller train.learning_rate than {rate:g}, "
            f"or {clipping}"
        )


def _check_memory(config: TrainConfig, architecture: Architecture) -> None:
    """Refuse a model that this machine could not hold: weights, gradients, their average, a copy and the optimizer's
    moments, float32 each."""
    moments = {"sgd": 0, "momentum": 1}.get(config.optimizer, 2)
    needed = 4 * (4 + moments) * sum(math.prod(shape) for shape in architecture.shapes().values())
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise TrainingError(
            f"the model would need {needed / 1e9:,.0f} GB and this machine has {there / 1e9:,.0f}: set a smaller "
            "train.hidden_size, or fewer train.layers"
        )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """While this holds, SIGINT and SIGTERM are only noted, in the list it gives; outside the main thread none come."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    previous = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            # None stands for a handler that was not set from Python, and that Python cannot set again.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)


def _streams(ids: Ids, batch_size: int, num_steps: int) -> Iterator[Minibatch]:
    """A split as ``batch_size`` parallel streams, cut into windows, of which the last may be shorter."""
    length = (len(ids) - 1) // batch_size
    starts = np.arange(batch_size)[:, None] * length
    for begin in range(0, length, num_steps):
        sequences = ids[starts + np.arange(begin, min(begin + num_steps, length) + 1)].astype(np.int32)
        yield sequences[:, :-1], sequences[:, 1:]


def _export(run: _Run, table: IndexTable, out: Path) -> None:
    """Write the weights, what is needed to use them, and the history."""
    import pyarrow as pa
    from safetensors.numpy import save

    config = run.config
    # Written by us, so that a disk that cannot take it is an OSError like any other.
    (out / "model.safetensors").write_bytes(save(run.published()))
    description = {
        "format": parameters.FORMAT,
        **asdict(run.architecture),
        "level": table.level,
        "normalizer": table.normalizer,
        "epoch": schedule.best_epoch(run.history_of("valid_loss")) if config.patience else run.epoch,
    }
    (out / "config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    figures = dict(zip(HISTORY, zip(*run.history, strict=True), strict=True))
    columns = {"epoch": pa.array(range(1, run.epoch + 1), pa.int32())}
    for name, values in figures.items():
        columns[name] = pa.array(values, pa.float64(), from_pandas=True)  # not a number becomes null
        if name.endswith("_loss"):
            perplexities = [None if math.isnan(loss) else metrics.perplexity(loss) for loss in values]
            columns[name.replace("loss", "perplexity")] = pa.array(perplexities, pa.float64())
    batch = pa.record_batch(columns)
    with pa.OSFile(str(out / "history.arrow"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
