"""Train the model on the engine that is given: epochs of minibatches, and checkpoints from which the run goes on.
A model of several networks is trained one after another.

An interrupted run that is started again gives the same bytes as one that was not interrupted.
"""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data import memory
from data.errors import ConfigError, Interrupted
from data.tables import history
from data.tables.tokens import IndexTable
from stages.lm import metrics, parameters
from stages.lm.parameters import FORMAT, MIXED, SEVERAL
from stages.training import checkpoint, minibatches, schedule, signals
from stages.training.engine import MOMENTS, Recipe
from stages.training.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from data.progress import Progress, Watch
    from stages.config import TrainConfig
    from stages.lm.parameters import Architecture, Parameters
    from stages.training.checkpoint import TrainState
    from stages.training.engine import Engine
    from stages.training.mixing import Mixing


def train(
    config: TrainConfig,
    *,
    tokens: Path,
    out: Path,
    progress: Progress,
    checkpoints: Path,
    engine: Callable[[Recipe], Engine],
    beside: Sequence[Path] = (),
    mixing: Callable[[TrainConfig, IndexTable], Mixing] | None = None,
    watching: Callable[[int], Watch] | None = None,
) -> dict[str, float]:
    """Write ``model.safetensors``, ``config.json``, ``vocab.arrow`` and ``history.arrow`` into ``out``, and of subwords
    ``merges.arrow``, of a mixture ``ngrams.arrow``.

    The weights are an average over the steps, as `TrainConfig.averaging` says, and so is what the validation loss is
    measured on. With ``patience`` they are those of the best epoch. The history of several networks is the mean of
    theirs.

    Args:
        config: the model and how it is trained.
        tokens: the folder of `tokenize`: ``tokens.arrow``, ``vocab.arrow`` and what may lie beside it.
        out: an empty folder.
        progress: called with epochs, those of an interrupted run that it goes on with among them.
        checkpoints: a folder that belongs to this configuration, whatever its ``epochs``, and to no other. The newest
            checkpoint there at or before ``config.epochs`` is where training goes on.
        engine: builds what computes, in the thread of this call; see `stages.training.engine`.
        beside: the same as ``checkpoints`` for each network behind the first.
        mixing: counts what stands beside the network, where the configuration asks for an n-gram.
        watching: who is told of each epoch of the network of that number, from 0 on.

    Returns:
        ``tokens_per_second`` over the training of this call; nothing where all of it had been done before.

    Raises:
        ConfigError: settings that ask for a validation loss where there is none.
        CorpusError: a training split that is too short for one minibatch.
        Interrupted: SIGINT, SIGTERM or SIGHUP; a checkpoint holds all that was done.
        StoreError: inputs that are damaged, or a disk that cannot take a checkpoint.
        TrainingError: a model that this machine cannot hold; a loss or a gradient that is not finite.
    """
    table = IndexTable.open(tokens / "tokens.arrow")
    recipe = Recipe.of(config, table.vocab_size, ends=table.ends)
    if mixing:
        progress(0, 0, "counting n-grams")
    counted = mixing(config, table) if mixing else None
    learnt, held_out = table.split("train"), table.split("valid")
    minibatches.check_length(len(learnt), config.batch_size, config.num_steps, config.partition)
    _check_memory(config, recipe, len(learnt))
    _check_validation(config, len(held_out))
    trained: list[_Trained] = []
    with signals.noted() as received:
        for number, folder in enumerate((checkpoints, *beside)):
            own = config.model_copy(update={"seed": config.seed + number})
            loop = Loop(own, recipe, engine(recipe), learnt, held_out, folder)
            loop.run(_told(progress, config, number), received, watching(number) if watching else None)
            if received:
                raise _interrupted(config, number, loop.state.epoch, received[0])
            trained.append(_Trained(loop.weights(), loop.state, loop.part, loop.tokens, loop.seconds))
            del loop  # an engine holds much
    weights = parameters.together([one.weights for one in trained])
    mixture = counted.publish(recipe.architecture, weights, out) if counted else None
    _export(config, recipe.architecture, trained, weights, table, out, mixture)
    for name in ("vocab.arrow", *(["merges.arrow"] if table.level == "bpe" else [])):
        shutil.copyfile(tokens / name, out / name)
    done, seconds = sum(one.tokens for one in trained), sum(one.seconds for one in trained)
    return {"tokens_per_second": round(done / seconds)} if done else {}


class _Trained(NamedTuple):
    """What is kept of the training of one network."""

    weights: Parameters
    state: TrainState
    part: int
    tokens: int
    """Trained on in this call, and the seconds that it took."""
    seconds: float


def _told(progress: Progress, config: TrainConfig, number: int) -> Progress:
    """What the training of one network tells of, as part of that of all."""
    networks = config.networks

    def told(done: float, total: float, figures: str) -> None:
        progress(number * total + done, networks * total, f"network {number + 1} of {networks} · {figures}")

    return told if networks > 1 else progress


def _interrupted(config: TrainConfig, number: int, epoch: int, received: int) -> Interrupted:
    of = f" of network {number + 1} of {config.networks}" if config.networks > 1 else ""
    return Interrupted(
        f"training was stopped in {schedule.called(config)} {min(epoch + 1, config.epochs):,} of "
        f"{config.epochs:,}{of} and nothing is lost: the same command goes on from there",
        received,
    )


def _check_memory(config: TrainConfig, recipe: Recipe, tokens: int) -> None:
    """Refuse what this machine could not hold, float32 each: weights, gradients, their average, a copy, the optimizer's
    moments, and the weights of networks trained before; of each token of a minibatch the gates of all layers and the
    logits."""
    model = recipe.architecture
    copies = 4 + len(MOMENTS[recipe.optimizer]) + model.networks - 1
    memory.check("the model", 4 * copies * model.weights(), parameters.SMALLER)
    at_once = config.batch_size * min(config.num_steps, tokens // config.batch_size)
    each = model.vocab_size + model.layers * parameters.GATES[model.cell] * model.hidden_size
    memory.check("a minibatch", 4 * at_once * each, "a smaller train.batch_size or train.num_steps")


def _check_validation(config: TrainConfig, tokens: int) -> None:
    """Refuse settings that ask for a validation loss where the split has too few tokens for one."""
    if tokens < 2 and (config.patience or config.schedule == "plateau"):
        asking = "patience" if config.patience else "schedule=plateau"
        raise ConfigError(
            f"train.{asking} needs a validation loss, and the validation split has {tokens:,} of the two tokens that "
            "one takes: set a larger tokenize.valid_share"
        )


def _export(
    config: TrainConfig,
    architecture: Architecture,
    trained: Sequence[_Trained],
    weights: Parameters,
    table: IndexTable,
    out: Path,
    mixture: dict[str, Any] | None,
) -> None:
    """Write the weights, what is needed to use them, and the history."""
    from safetensors.numpy import save

    figures = {
        name: np.mean([one.state.history[name] for one in trained], axis=0).tolist() for name in checkpoint.FIGURES
    }
    # Written by us, so that a disk that cannot take it is an OSError like any other.
    (out / "model.safetensors").write_bytes(save(weights))
    kind = MIXED if mixture else 4 if table.ends else 3 if table.level == "bpe" else 2
    last = trained[-1]
    description = {
        "format": FORMAT if table.level == "letter" else SEVERAL if architecture.networks > 1 else kind,
        **architecture.description(),
        "level": table.level,
        "normalizer": table.normalizer,
        "epoch": schedule.best_epoch(figures["valid_loss"]) if config.patience else last.state.epoch,
    }
    if last.part:
        tokens = last.state.tokens
        description |= {"tokens": tokens, "passes": round(tokens / len(table.splits["train"]), 6)}
    if mixture:
        description["mixture"] = mixture
    (out / "config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    columns: dict[str, list[float]] = {}
    for name, values in figures.items():
        columns[name] = values
        if name.endswith("_loss"):
            perplexities = [math.nan if math.isnan(loss) else metrics.perplexity(loss) for loss in values]
            columns[name.replace("loss", "perplexity")] = perplexities
    history.write(out / "history.arrow", columns)
