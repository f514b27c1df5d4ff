"""The trainings that a store holds: what each was asked for, how well it did, what it takes, who is champion."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from data.errors import StoreError
from data.store import champions, reigns
from data.store.reading import SMALL, read
from stages.pipeline import begun, graph, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from data.store.artifact import Artifact
    from data.store.folder import Store


@dataclass(frozen=True)
class Training:
    """One of them."""

    artifact: Artifact
    settings: Mapping[str, Any]
    """``train.hidden_size`` → value, of each setting that is not as in a run without options."""
    passes: float | None
    """Over the training split: a share of one where `train.max_tokens` ended it; None where the files do not say."""
    perplexity: float | None
    """Of the weights that came out, on the validation split; None without one."""
    checkpoints: int
    """Bytes of those that it left behind, to train longer."""
    champion: list[str]
    """Under which names it is the champion."""

    @property
    def bytes(self) -> int:
        """What the artifact's files take."""
        return sum(output.bytes for output in self.artifact.manifest.outputs.values())

    def json(self) -> dict[str, Any]:
        return {
            "key": self.artifact.manifest.key,
            "artifact": str(self.artifact.folder),
            "created": self.artifact.manifest.created,
            "settings": dict(self.settings),
            "passes": self.passes,
            "perplexity": self.perplexity,
            "bytes": self.bytes,
            "checkpoint_bytes": self.checkpoints,
            "champion": self.champion,
        }


def trainings(store: Store) -> list[Training]:
    """All that have ended, the last one first; what is wrong with one leaves its figures out.

    Raises:
        StoreError: names of champions that cannot be read.
    """
    reigning: dict[str, list[str]] = {}
    for name in reigns.names(store):
        with suppress(StoreError):  # `rnnlm champion` says what is wrong
            if reign := champions.current(store, name):
                reigning.setdefault(reign.model, []).append(name)
    default = settings.load().model_dump(mode="json")
    return [
        Training(
            artifact,
            _differing(artifact, default, store),
            _passes(artifact),
            _perplexity(artifact),
            _checkpoints(artifact, store),
            reigning.get(artifact.manifest.key, []),
        )
        for artifact in store.artifacts(champions.STAGE)
    ]


def _differing(artifact: Artifact, default: Mapping[str, Mapping[str, Any]], store: Store) -> dict[str, Any]:
    made = {artifact.manifest.stage: artifact}
    waiting = [artifact]
    while waiting:
        for stage, key in waiting.pop().manifest.parents.items():
            with suppress(StoreError):
                if stage not in made and (parent := store.find(stage, key)):
                    made[stage] = parent
                    waiting.append(parent)
    return {
        f"{stage}.{field}": value
        for stage in graph.order(champions.STAGE)
        if stage in made
        for field, value in made[stage].manifest.config.items()
        if field not in default.get(stage, {}) or default[stage][field] != value
    }


def _passes(artifact: Artifact) -> float | None:
    from data.tables import history

    try:
        model = json.loads(read(artifact.folder / "config.json", SMALL))
        if "passes" in model:
            return float(model["passes"])
        return float(len(history.read(artifact.folder / "history.arrow")["epoch"]))
    except (OSError, ValueError, TypeError, RecursionError, StoreError):
        return None


def _perplexity(artifact: Artifact) -> float | None:
    from data.tables import history

    try:
        measured = [one for one in history.read(artifact.folder / "history.arrow")["valid_perplexity"] if one]
    except StoreError:
        return None
    # With patience the weights of the best epoch are kept, else those of the last.
    return (min(measured) if artifact.manifest.config.get("patience") else measured[-1]) if measured else None


def _checkpoints(artifact: Artifact, store: Store) -> int:
    sizes = 0
    for path in chain.from_iterable(store.entries(f"checkpoints/{name}") for name in begun.checkpoints(artifact)):
        with suppress(OSError):
            sizes += path.lstat().st_size
    return sizes
