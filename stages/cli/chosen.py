"""Which model a command uses: the one that is named, the store's best, or one whose weights are drawn at random."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import ConfigError, StoreError
from data.store.artifact import Artifact
from data.store.folder import Store
from data.store.naming import DEFAULT
from stages.pipeline import graph

if TYPE_CHECKING:
    from data.tables.tokens import IndexTable
    from stages.cli.options import Place
    from stages.config import RunConfig
    from stages.lm.model import LanguageModel

logger = logging.getLogger(__name__)


def untrained(config: RunConfig, store: Store) -> tuple[LanguageModel, IndexTable]:
    """The model that a run would begin with, and on what; what comes before the training runs if need be."""
    from data.tables.tokens import IndexTable
    from data.tables.vocab import Vocab
    from stages.cli import runs
    from stages.lm.model import LanguageModel

    tokens = runs.walk(config, store).to(graph.STAGES["train"].inputs["tokens"].stage)
    table = IndexTable.open(tokens.folder / "tokens.arrow")
    vocab = Vocab.read(tokens.folder / "vocab.arrow", merged=table.level == "bpe")
    return LanguageModel.untrained(config.train, vocab, level=table.level, normalizer=table.normalizer), table


def trained_on(model: Path) -> IndexTable | None:
    """What a model learnt from, where it lies in a store that still has that."""
    from data.tables.tokens import IndexTable

    stage = graph.STAGES["train"].inputs["tokens"].stage
    try:
        trained = Artifact.read(model)
        if trained is None or stage not in trained.manifest.parents:
            return None
        store = Store(model.resolve().parents[1])
        tokens = store.find(stage, trained.manifest.parents[stage])
        if tokens is None:
            return None
        if damage := store.damage(tokens):
            raise StoreError(f"{tokens.folder} is damaged ({damage})")
        return IndexTable.open(tokens.folder / "tokens.arrow")
    except StoreError as error:
        logger.warning("the text has no beginning, for what the model learnt from cannot be read: %s", error)
        return None


def made(preset: str, store: Store) -> Path:
    """The folder of the model that a run of a preset has made, and would reuse."""
    from data.store import champions
    from stages.pipeline import decide, settings

    states = {state.name: state for state in decide.status(settings.load(preset, None, ()), store)}
    state = states[champions.STAGE]
    if state.decision is None or state.decision.artifact is None:
        raise StoreError(
            f"{store.root} has no model of the preset {preset} ({state.reason}): make it with "
            f"`rnnlm train --preset {preset}`, or name another with --model"
        )
    return state.decision.artifact.folder


def asked(model: Path | None, name: str, preset: str | None, place: Place) -> Path:
    """The folder of the model that a command's options mean: of the preset if there is one, else see `folder`."""
    if preset is None:
        return folder(model, name, place)
    if model is None and name == DEFAULT:
        return made(preset, place.open())
    raise ConfigError(f"--preset says which model: leave out --{'name' if model is None else 'model'}")


def load(folder: Path) -> LanguageModel:
    """The model in a folder."""
    from stages.lm.model import LanguageModel

    return LanguageModel.load(folder)


def folder(model: Path | None, name: str, place: Place) -> Path:
    """Of the model that was named, else of the store's best."""
    if model is None:
        from data.store import champions

        return champions.best(place.open(), name).folder
    if name != DEFAULT:
        raise ConfigError("--model names a model's folder and --name a champion: leave out one of the two")
    return model
