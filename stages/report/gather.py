"""All that a report tells of a finished run, read from its artifacts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from data.corpus.level import LEVELS, Level
from data.errors import StoreError
from data.store.reading import read
from data.tables.borders import DOCUMENTS, Borders
from stages.pipeline import sound
from stages.report import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from data.tables.borders import Found
    from stages.pipeline.run import Outcome


@dataclass(frozen=True)
class Report:
    """A finished run, and what was decided about its model."""

    outcomes: Mapping[str, Outcome]
    """Stage → what became of it, in the order in which they ran."""
    verdict: Mapping[str, Any] | None
    """``stages.promotion.judge.Verdict`` as JSON; None where nothing was to be promoted."""
    metrics: words.Metrics
    samples: Sequence[Mapping[str, Any]]
    """``samples.json`` of `evaluate`."""
    history: words.History
    model: Mapping[str, Any]
    """``config.json`` of `train`."""
    source: Mapping[str, Any]
    """``source.json`` of `download`."""
    documents: Found | None = None
    """What `tokenize` found of several documents."""

    @property
    def level(self) -> Level:
        """What a token is."""
        return LEVELS[self.model["level"]]

    @property
    def summary(self) -> str:
        """How the model did against its baselines, in one sentence."""
        return words.summary(self.metrics, self.level)

    @property
    def unit(self) -> str:
        """What a row of the history stands for."""
        return "part" if words.passes(self.model) else "epoch"

    @property
    def description(self) -> str:
        """The model in one sentence."""
        return words.description(self.model, len(self.history["epoch"]))


def gather(outcomes: Iterable[Outcome], verdict: Mapping[str, Any] | None = None) -> Report:
    """Read what a run of all stages left behind; ``verdict`` is as in `Report`."""
    by_name = {outcome.name: outcome for outcome in outcomes}
    downloaded, tokenized, trained, evaluated = (
        by_name[name].artifact.folder for name in ("download", "tokenize", "train", "evaluate")
    )
    sound.source(downloaded)
    sound.trained(trained)
    sound.evaluate(evaluated)
    return Report(
        by_name,
        verdict,
        metrics=_json(evaluated / "metrics.json"),
        samples=_json(evaluated / "samples.json"),
        history=sound.history(trained),
        model=_json(trained / "config.json"),
        source=_json(downloaded / "source.json"),
        documents=Borders.read(path).found if (path := tokenized / DOCUMENTS).exists() else None,
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(read(path, inf))  # which `sound` has looked at
    except (OSError, ValueError, RecursionError):
        raise StoreError(f"{path} cannot be read: run again with --force {path.parent.parent.name}") from None
