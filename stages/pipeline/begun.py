"""Which trainings have begun and which have ended: what makes two the same, and who cannot go on with another's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from data.errors import FormatError, StoreError
from data.store import fingerprint
from data.store.champions import STAGE
from data.store.files import make, replace
from data.store.reading import SMALL, read
from stages.config import TrainConfig
from stages.training import checkpoint, schedule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from data.store.artifact import Artifact
    from data.store.folder import Store

    Components = Mapping[str, Any]
    """Of the key of `train`."""

_NOTE = "begun.json"
"""Beside the checkpoints of a training: which engine they are by, what it trains, and what its key was made of."""
_NAMED = 3
"""Changes of code and libraries that are named."""


def identities(config: TrainConfig, components: Components) -> list[str]:
    """What the training of each network is but for its length: trainings with one identity share their checkpoints."""
    return [
        fingerprint.digest({**components, "config": _settings(config, components, number)})
        for number in range(config.networks)
    ]


def note(checkpoints: Path, config: TrainConfig, components: Components, number: int) -> None:
    """Write down whose checkpoints these are, for `lost`: those of the network of that number, from 0 on.

    Raises:
        StoreError: a disk that cannot take it.
    """
    facts = {
        "engine": components["sources"]["engine"],
        "training": _whoever_trains(config, components, number),
        "components": components,
    }
    try:
        make(checkpoints)
        replace(checkpoints / _NOTE, f"{json.dumps(facts)}\n".encode())
    except OSError as error:
        raise StoreError(f"{checkpoints} cannot be written ({error.strerror}): make room there") from error


def lost(config: TrainConfig, components: Components, store: Store) -> str:
    """That another engine, or other code, has begun this training and not ended it, in a sentence; empty where none
    has, or where this training would go on with checkpoints of its own."""
    trainings = {
        _whoever_trains(config, components, number)
        for number, identity in enumerate(identities(config, components))
        if not (store.root / "checkpoints" / identity[:16]).is_dir()
    }
    for folder in store.folders("checkpoints") if trainings else []:
        try:
            facts = json.loads(read(folder / _NOTE, SMALL))
            if facts["training"] not in trainings:
                continue
            who, why = _whose(facts, components)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        try:
            state, _ = checkpoint.latest(folder, config.epochs) or (None, None)
        except FormatError:
            return f"training begins anew: a newer version of rnnlm has begun it, and goes on with {folder} alone"
        if state and state.epoch < config.epochs and not schedule.exhausted(config, state.history["valid_loss"]):
            where = f"{schedule.called(config)} {state.epoch + 1:,} of {config.epochs:,}"
            return f"training begins anew: {who} would go on in {where}, but {why}"
    return ""


def _whose(facts: Mapping[str, Any], components: Components) -> tuple[str, str]:
    """Who could go on with checkpoints, and why nobody else can."""
    if facts["engine"] != components["sources"]["engine"]:
        return str(facts["engine"]), "no engine goes on with another one's training"
    before = facts.get("components", {})
    compared = [part for part in ("code", "libraries") if part in before]
    changes = fingerprint.difference(STAGE, *({part: one[part] for part in compared} for one in (before, components)))
    more = f"; and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
    named = f" ({'; '.join(changes[:_NAMED])}{more})" if changes else ""
    return f"the version before{named}", "no version goes on with another one's training"


def checkpoints(artifact: Artifact) -> list[str]:
    """The names of the folders of checkpoints that a training has left behind; none where an older version made it."""
    try:
        config = TrainConfig.model_validate(artifact.manifest.config)
        return [identity[:16] for identity in identities(config, artifact.manifest.components)]
    except (ValidationError, KeyError, TypeError):
        return []


def ended(store: Store) -> set[str]:
    """The names of folders of checkpoints that nothing which has not ended needs: more epochs would go on from there.

    An evaluation's are among them, where that has ended.
    """
    epochs: dict[str, int] = {}
    for artifact in store.artifacts(STAGE):
        for name in checkpoints(artifact):
            epochs[name] = max(epochs.get(name, 0), artifact.manifest.config["epochs"])
    found = {name for name, last in epochs.items() if _position(store, name) <= (last, 0)}
    return found | {artifact.folder.name for artifact in store.artifacts() if artifact.manifest.stage != STAGE}


def newer(store: Store) -> set[str]:
    """The names of folders with checkpoints that a newer version keeps there."""
    found = set()
    for folder in store.folders("checkpoints"):
        try:
            checkpoint.refuse_newer(folder)
        except FormatError:
            found.add(folder.name)
    return found


def _position(store: Store, name: str) -> tuple[int, int]:
    """How far a training has come, as its newest checkpoint is named."""
    found = checkpoint.positions(store.root / "checkpoints" / name)
    return found[-1][0] if found else (0, 0)


def _whoever_trains(config: TrainConfig, components: Components, number: int) -> str:
    """What a training is but for its length and for the engine with its code and its library."""
    return fingerprint.digest({"config": _settings(config, components, number), "inputs": components["inputs"]})


def _settings(config: TrainConfig, components: Components, number: int) -> dict[str, Any]:
    """Those of the training of one network but for its length.

    Where the learning rate falls towards a last epoch, that one counts, whichever field it is asked for with; of a
    bound on tokens, how long it makes an epoch.
    """
    settings = {**components["config"], "epochs": None, "seed": config.seed + number}
    for name in ("networks", "ngram", "ngram_min_count"):  # what stands beside the network
        settings.pop(name, None)
    if part := schedule.part(config):
        settings["max_tokens"] = part
    if (horizon := schedule.horizon(config)) is not None:
        settings["decay_epochs"] = horizon
    return settings
