"""Train the model on the engine that is given: epochs of minibatches, and checkpoints from which the run goes on.

An interrupted run that is started again gives the same bytes as one that was not interrupted.
"""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any

from data import memory
from data.errors import ConfigError, Interrupted
from data.tables import history
from data.tables.tokens import IndexTable
from stages.lm import metrics, parameters
from stages.training import minibatches, schedule, signals
from stages.training.engine import MOMENTS, Recipe
from stages.training.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from data.progress import Progress
    from stages.config import TrainConfig
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
    mixing: Callable[[TrainConfig, IndexTable], Mixing] | None = None,
) -> dict[str, float]:
    """Write ``model.safetensors``, ``config.json``, ``vocab.arrow`` and ``history.arrow`` into ``out``, and of subwords
    ``merges.arrow``, of a mixture ``ngrams.arrow``.

    The weights are an average over the steps, as `TrainConfig.averaging` says, and so is what the validation loss is
    measured on. With ``patience`` they are those of the best epoch.

    Args:
        config: the model and how it is trained.
        tokens: the folder of `tokenize`: ``tokens.arrow``, ``vocab.arrow`` and what may lie beside it.
        out: an empty folder.
        progress: called with epochs, those of an interrupted run that it goes on with among them.
        checkpoints: a folder that belongs to this configuration, whatever its ``epochs``, and to no other. The newest
            checkpoint there at or before ``config.epochs`` is where training goes on.
        engine: builds what computes, in the thread of this call; see `stages.training.engine`.
        mixing: counts what stands beside the network, where the configuration asks for an n-gram.

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
    beside = mixing(config, table) if mixing else None
    learnt, held_out = table.split("train"), table.split("valid")
    minibatches.check_length(len(learnt), config.batch_size, config.num_steps, config.partition)
    _check_memory(config, recipe, len(learnt))
    _check_validation(config, len(held_out))
    with signals.noted() as received:
        loop = Loop(config, recipe, engine(recipe), learnt, held_out, checkpoints)
        loop.run(progress, received)
    if received:
        raise Interrupted(
            f"training was stopped in {schedule.called(config)} {min(loop.state.epoch + 1, config.epochs):,} of "
            f"{config.epochs:,} and nothing is lost: the same command goes on from there",
            received[0],
        )
    _export(loop, table, out, beside.publish(loop.architecture, loop.weights(), out) if beside else None)
    for name in ("vocab.arrow", *(["merges.arrow"] if table.level == "bpe" else [])):
        shutil.copyfile(tokens / name, out / name)
    return {"tokens_per_second": round(loop.tokens / loop.seconds)} if loop.tokens else {}


def _check_memory(config: TrainConfig, recipe: Recipe, tokens: int) -> None:
    """Refuse what this machine could not hold, float32 each: weights, gradients, their average, a copy and the
    optimizer's moments; of each token of a minibatch the gates of all layers and the logits."""
    model = recipe.architecture
    copies = 4 + len(MOMENTS[recipe.optimizer])
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


def _export(loop: Loop, table: IndexTable, out: Path, mixture: dict[str, Any] | None) -> None:
    """Write the weights, what is needed to use them, and the history."""
    from safetensors.numpy import save

    config, figures = loop.config, loop.state.history
    # Written by us, so that a disk that cannot take it is an OSError like any other.
    (out / "model.safetensors").write_bytes(save(loop.weights()))
    description = {
        "format": 5 if mixture else 4 if table.ends else 3 if table.level == "bpe" else 2,
        **loop.architecture.description(),
        "level": table.level,
        "normalizer": table.normalizer,
        "epoch": schedule.best_epoch(figures["valid_loss"]) if config.patience else loop.state.epoch,
    }
    if loop.part:
        tokens = loop.state.tokens
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
