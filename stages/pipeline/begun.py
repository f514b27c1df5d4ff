"""Which trainings have begun: what makes two the same, and that no engine goes on with another one's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from data.errors import StoreError
from data.store import fingerprint
from data.store.files import replace
from stages.training import checkpoint, schedule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from data.store.folder import Store
    from stages.config import TrainConfig

    Components = Mapping[str, Any]
    """Of the key of `train`."""

_NOTE = "begun.json"
"""Beside the checkpoints of a training: which engine they are by, and what it trains."""


def identity(config: TrainConfig, components: Components) -> str:
    """What a training is but for its length: trainings with one identity share their checkpoints."""
    return fingerprint.digest({**components, "config": _settings(config, components)})


def note(checkpoints: Path, config: TrainConfig, components: Components) -> None:
    """Write down whose checkpoints these are, for `elsewhere`.

    Raises:
        StoreError: a disk that cannot take it.
    """
    facts = {"engine": components["sources"]["engine"], "training": _whoever_trains(config, components)}
    try:
        checkpoints.mkdir(parents=True, exist_ok=True)
        replace(checkpoints / _NOTE, f"{json.dumps(facts)}\n".encode())
    except OSError as error:
        raise StoreError(f"{checkpoints} cannot be written ({error.strerror}): make room there") from error


def elsewhere(config: TrainConfig, components: Components, store: Store) -> str:
    """That another engine has begun this training and not ended it, in a sentence; empty where none has."""
    engine, training = components["sources"]["engine"], _whoever_trains(config, components)
    for folder in store.folders("checkpoints"):
        try:
            facts = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if facts["training"] != training or facts["engine"] == engine:
            continue
        state, _ = checkpoint.latest(folder, config.epochs) or (None, None)
        if state and state.epoch < config.epochs and not schedule.exhausted(config, state.history["valid_loss"]):
            return (
                f"training begins anew: {facts['engine']} would go on in epoch {state.epoch + 1:,} of "
                f"{config.epochs:,}, but no engine goes on with another one's training"
            )
    return ""


def _whoever_trains(config: TrainConfig, components: Components) -> str:
    """What a training is but for its length and for the engine with its code and its library."""
    return fingerprint.digest({"config": _settings(config, components), "inputs": components["inputs"]})


def _settings(config: TrainConfig, components: Components) -> dict[str, Any]:
    """Those of a training but for its length.

    Where the learning rate falls towards a last epoch, that one counts, whichever field it is asked for with.
    """
    settings = {**components["config"], "epochs": None}
    if (horizon := schedule.horizon(config)) is not None:
        settings["decay_epochs"] = horizon
    return settings
