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
from typing import TYPE_CHECKING, SupportsFloat

import numpy as np

from data.errors import Interrupted, TrainingError
from data.tokens import IndexTable, Minibatches, check_length
from stages.lm import checkpoint, metrics, parameters
from stages.lm.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from data.tokens import Ids, Minibatch
    from stages.config import TrainConfig
    from stages.lm.device import Device
    from stages.progress import Progress

logger = logging.getLogger(__name__)

HISTORY = ("train_loss", "valid_loss", "learning_rate", "grad_norm_mean", "grad_norm_max")
"""The columns of the history as checkpoints hold it; a figure that there is not is not a number there."""
_AVERAGING = 9
"""How much the published weights, an average over the steps, favour the late ones: the eta of polynomial-decay
averaging (Shamir and Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", ICML 2013). At 9 most of the
average is the last tenth of the steps, however many there are. At a constant learning rate the last step's weights
suit the last minibatches: the book's model ends at a perplexity of 1.17 over its whole training split, its average
at 1.03."""
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

    The weights are an average over the steps (see ``_AVERAGING``), and so is what the validation loss is measured on.

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
        from stages.lm.gluon import GluonEngine

        check_length(len(table.split("train")), config.batch_size, config.num_steps, config.partition)
        self.config = config
        shape = (config.cell, config.hidden_size, config.layers, table.vocab_size)
        _check_memory(parameters.shapes(*shape))
        self.engine = GluonEngine(*shape, config.batch_size, config.clip_norm, device)
        self.epoch = 0
        """Epochs that are complete."""
        self.history: list[tuple[float, ...]] = []
        self.tokens, self.seconds = 0, 0.0
        """What was trained on here, and how long that took without validation and checkpoints."""
        self._ids, self._valid = table.split("train"), table.split("valid")
        self._checkpoints = checkpoints
        self._checkpoint_due = 0.0
        # Not the stream that the weights are drawn from.
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(config.seed, spawn_key=(1,))))
        self._step, self._totals = 0, dict(_NO_TOTALS)
        self._steps = 0
        """Minibatches in all, where `_step` counts those of the epoch under way."""
        self._ahead = 1
        """Steps that the engine is given before their figures are asked for."""
        found = checkpoint.latest(checkpoints, config.epochs)
        if found:
            self._restore(found)
        else:
            self.engine.load_parameters(parameters.initial(*shape, seed=config.seed))
        # As it is at the start of the epoch under way: what that epoch draws, a resumed run draws again.
        self._generator = self._rng.bit_generator.state

    def go(self, progress: Progress, received: list[int]) -> None:
        """Train to the last epoch, or until ``received`` holds the signal that asks to stop; save either way."""
        config, began_at = self.config, self.epoch
        while self.epoch < config.epochs and not received:
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
                if self.epoch < config.epochs and not received and time.monotonic() < self._checkpoint_due:
                    continue
            self._save()

    def _train(self, minibatches: Minibatches, report: Callable[[float], None], received: list[int]) -> None:
        """The rest of an epoch, or as much of it as comes before a signal.

        The engine answers before it has computed; its figures are asked for only now and then, so that it never waits.
        """
        while self._step < len(minibatches) and not received:
            began = time.perf_counter()
            figures: list[tuple[SupportsFloat, SupportsFloat, int]] = []
            for inputs, targets in self.engine.upload(minibatches[self._step : self._step + self._ahead]):
                if self.config.partition == "random":
                    self.engine.reset_state()
                figures.append((*self.engine.step(inputs, targets, self.config.learning_rate), inputs.size))
                self._steps += 1
                self.engine.average((_AVERAGING + 1) / (_AVERAGING + self._steps))
            for loss, norm, tokens in figures:
                self._count(float(loss), float(norm), tokens)
            seconds = time.perf_counter() - began
            self._ahead = max(1, min(_STEPS_AHEAD, int(_SECONDS_AHEAD * len(figures) / seconds)))
            self.tokens += sum(tokens for *_, tokens in figures)
            self.seconds += seconds
            report(self._step / len(minibatches))

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
        enough = len(self._valid) > config.batch_size * config.num_steps
        valid = self.engine.loss(_streams(self._valid, config.batch_size, config.num_steps)) if enough else math.nan
        row = (totals["loss"] / totals["tokens"], valid, config.learning_rate)
        self.history.append((*row, totals["grad_norm"] / self._step, totals["grad_norm_max"]))
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
        self.engine.load_state(found.state)
        self._rng.bit_generator.state = found.generator
        self.epoch, self._step, self._steps, self._totals = found.epoch, found.step, found.steps, dict(found.totals)
        self.history = [tuple(row) for row in found.history.tolist()]
        if self.epoch < self.config.epochs:
            logger.info("training goes on in epoch %d of %d", self.epoch + 1, self.config.epochs)

    def _diverged(self, what: str) -> TrainingError:
        rate, clip = self.config.learning_rate, self.config.clip_norm
        clipping = f"a smaller train.clip_norm than {clip:g}" if clip else "train.clip_norm=1, for 0 never clips"
        return TrainingError(
            f"{what} is no longer finite in epoch {self.epoch + 1:,}: try a smaller train.learning_rate than {rate:g}, "
            f"or {clipping}"
        )


def _check_memory(shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse a model that this machine could not hold: weights, gradients, their average and a copy, float32 each."""
    needed = 16 * sum(math.prod(shape) for shape in shapes.values())
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
    (out / "model.safetensors").write_bytes(save(run.engine.averages()))
    description = {
        "format": parameters.FORMAT,
        "cell": config.cell,
        "activation": "relu" if config.cell == "rnn" else "tanh",
        "hidden_size": config.hidden_size,
        "layers": config.layers,
        "vocab_size": table.vocab_size,
        "level": table.level,
        "normalizer": table.normalizer,
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
