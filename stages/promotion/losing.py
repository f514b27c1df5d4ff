"""Nights that keep losing: what sets their configuration apart from the champion's, which nobody else would notice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from data.store.artifact import Artifact
    from data.store.nights import NightRecord
    from stages.config import RunConfig

    Differences = dict[str, tuple[Any, Any]]
    """``STAGE.FIELD`` → the champion's value, and tonight's."""

IN_A_ROW = 3
"""After so many lost nights it is said."""
_LUCK = {"seed", "engine", "device"}
"""Settings of which none is stronger than another."""


def differences(config: RunConfig, made: Iterable[Artifact]) -> Differences:
    """What tonight's configuration has otherwise than that of a champion, of all stages after the one with the corpus.

    Args:
        config: tonight's.
        made: the champion and what it was made from; none where there is none.
    """
    found: Differences = {}
    for artifact in made:
        stage, theirs = artifact.manifest.stage, artifact.manifest.config
        ours = dict(config).get(stage)
        if ours is None or "corpus" in theirs:
            continue
        for field, value in ours.model_dump(mode="json").items():
            # A field that came later is no difference: what was made before it had what is the default now.
            if field not in _LUCK and theirs.get(field, value) != value:
                found[f"{stage}.{field}"] = (theirs[field], value)
    return found


def why(differ: Differences, champion: str, before: Sequence[NightRecord]) -> str:
    """What would have to change, to be added to the reason of a night that has lost; empty before the third in a row.

    Args:
        differ: what sets tonight apart.
        champion: its key.
        before: the nights before this one, the newest last.
    """
    lost = 1
    for night in reversed(before):
        if night.decision in ("refused", "failed"):  # they decided nothing
            continue
        if not (night.lost and night.differs and night.champion and night.champion.key == champion):
            break
        lost += 1
    if not differ or lost < IN_A_ROW:
        return ""
    what = ", ".join(f"{name} {_text(theirs)} (tonight {_text(ours)})" for name, (theirs, ours) in differ.items())
    remedy = " ".join(f"--set {name}={_text(theirs)}" for name, (theirs, _) in differ.items())
    return (
        f"; the champion was made with {what}, and nights of another configuration have lost {lost} times in a row: "
        f"give the nights its configuration, {remedy}, or promote one of theirs by hand with `rnnlm promote`"
    )


def _text(value: Any) -> str:
    """A setting as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
