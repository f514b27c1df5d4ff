"""The one place that decides between a hit and a miss: what a stage's key is made of, and why it would rerun."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any, Literal

from data.corpus.address import written
from data.errors import FormatError, StoreError
from data.moment import minute
from data.store import fingerprint, loaded, mirror
from stages.config import StageConfig
from stages.pipeline import graph

if TYPE_CHECKING:
    from data.store.artifact import Artifact
    from data.store.folder import Store
    from stages.config import RunConfig
    from stages.pipeline.graph import Stage

    Upstream = Mapping[str, Artifact]
    """Stage → its artifact, of all that the stage in question reads."""


@dataclass(frozen=True)
class Decision:
    """What is known of a stage before it runs: its key, and the artifact to reuse or the reason to rerun."""

    stage: Stage
    config: StageConfig
    key: str
    components: dict[str, Any]
    artifact: Artifact | None
    """The verified artifact with this key; None when there is no such."""
    reason: str
    """Why the stage would be reused or rerun, in words."""
    damaged: bool = False
    """Whether there is an artifact with this key that cannot be used."""


@dataclass(frozen=True)
class Status:
    """Where a stage stands before a run; ``decision`` is None while a stage before it has to run first."""

    name: str
    state: Literal["cached", "stale", "missing"]
    reason: str
    decision: Decision | None = field(repr=False)

    def json(self) -> dict[str, Any]:
        artifact = self.decision.artifact if self.decision else None
        return {
            "name": self.name,
            "state": self.state,
            "key": self.decision.key if self.decision else None,
            "artifact": str(artifact.folder) if artifact else None,
            "since": artifact.manifest.created if artifact else None,
            "reason": self.reason,
        }


def decide(name: str, config: RunConfig, upstream: Upstream, store: Store) -> Decision:
    """A stage's key, and whether the store holds a sound artifact for it.

    Raises:
        FormatError: it holds a newer version's.
    """
    stage = graph.STAGES[name]
    own: StageConfig = dict(config).get(name, StageConfig())  # a model has attributes of its own, `copy` for one
    sources = stage.sources(own)
    components: dict[str, Any] = {
        "stage": name,
        "version": stage.version,
        "config": {field: value for field, value in own.model_dump(mode="json").items() if field not in sources},
        "sources": {field: value for field, value in sources.items() if value is not None},
        "inputs": {
            f"{one.stage}/{file}": upstream[one.stage].sha256(file)
            for one in stage.inputs.values()
            for file in (*one.files, *(name for name in one.maybe if name in upstream[one.stage].manifest.outputs))
        },
        "code": fingerprint.code(*modules(stage, own)),
        # Not Python: it gives one code one digest (one that does not costs a rerun), and one input one result. What it
        # knows of letters is among these where that counts.
        "libraries": {library: version(library) for library in stage.libraries(own)},
    }
    key = fingerprint.digest(components)
    artifact, damage = store.find(name, key), None
    if artifact is not None:
        lost = graph.files_read(name) - artifact.manifest.outputs.keys()
        last = name == graph.LAST  # which the report reads; what a stage reads is looked at before that stage runs
        damage = f"its manifest does not name {min(lost)}" if lost else store.damage(artifact, again=last)
        if not damage and last:
            damage = fault(artifact)
    elif os.path.lexists(store.folder(name, key)):
        damage = "its manifest cannot be read"
    if damage:
        artifact, reason = None, f"damaged: {damage}"
    elif artifact is not None:
        reason = f"unchanged since {when(artifact)}"
    elif store.began(name, key):
        reason = "it was never finished, or its artifact is gone"
    else:
        nearest = closest(components, store)
        reason = "; ".join(differences(own, nearest, components)) if nearest else "no artifact of this stage yet"
    return Decision(stage, own, key, components, artifact, reason, damaged=damage is not None)


def fault(artifact: Artifact) -> str:
    """What an artifact's files say that its stage would not, in a sentence; empty where they are sound.

    Raises:
        FormatError: a newer version has written one.
    """
    stage = graph.STAGES.get(artifact.manifest.stage)
    try:
        if stage:  # a sweep is none
            stage.check(artifact.folder)
    except FormatError:
        raise
    except StoreError as error:
        return str(error)
    return ""


def modules(stage: Stage, config: StageConfig) -> tuple[str, ...]:
    """Those whose code, with all that they import, is in a stage's key."""
    return (stage.function.__module__, *stage.modules(config))


def status(config: RunConfig, store: Store) -> Iterator[Status]:
    """Each stage's state; past the first one that is not cached, what comes after it cannot be known."""
    upstream: dict[str, Artifact] = {}
    likely: dict[str, Artifact] = {}
    for name in graph.order(graph.LAST):
        stage = graph.STAGES[name]
        absent = [one.stage for one in stage.inputs.values() if one.stage not in upstream]
        if absent:
            reason = f"{absent[0]} has to run first; whether this reruns depends on what comes out"
            decision = None
        else:
            decision = decide(name, config, upstream, store)
            reason = decision.reason
            if decision.artifact is not None:
                upstream[name] = decision.artifact
            elif promised := mirror.promised(store, name, decision.key):
                upstream[name] = promised
                reason = f"not here, but the remote has it, made {when(promised)}: a run brings it"
        # What is about to be made again often has the same bytes as before: it is said what would be lost then.
        expected = decision
        if expected is None and all(one.stage in likely for one in stage.inputs.values()):
            expected = decide(name, config, likely, store)
        if expected is not None and (nearest := expected.artifact or closest(expected.components, store)):
            likely[name] = nearest
        if expected is not None and expected.artifact is None and name not in upstream:
            reason = "; ".join(filter(None, (reason, stage.lost(expected.config, expected.components, store))))
        if not stage.shown:
            continue
        if decision is not None and decision.artifact is not None:
            yield Status(name, "cached", reason, decision)
        else:
            yield Status(name, "stale" if store.artifacts(name) else "missing", reason, decision)


def closest(components: Mapping[str, Any], store: Store) -> Artifact | None:
    """The same stage's artifact whose key differs in the fewest components; of several, the last one made."""
    stage = components["stage"]
    return min(
        store.artifacts(stage),
        key=lambda artifact: len(fingerprint.difference(stage, artifact.manifest.components, components)),
        default=None,
    )


def recorded(config: StageConfig) -> dict[str, Any]:
    """A stage's settings as they may be written down: addresses without what is secret in them."""
    dumped = config.model_dump(mode="json")
    return {field: written(value) if isinstance(value, str) else value for field, value in dumped.items()}


def differences(
    config: StageConfig, artifact: Artifact, components: Mapping[str, Any], *, digests: bool = False
) -> list[str]:
    """In words, what sets a stage's key components apart from those of an artifact; with ``digests``, in these too."""
    stage, settings, manifest = components["stage"], recorded(config), artifact.manifest
    old, new = (dict(each) for each in (manifest.components, components))
    before, after = old.pop("sources", {}), new.pop("sources", {})
    phrases = fingerprint.difference(stage, old, new, digests=digests)
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        if any(str(value).startswith("sha256:") for value in (was, now)):
            if manifest.config.get(name) == settings.get(name):
                phrases.append(f"the bytes of {settings[name]} changed")
                continue
            was, now = manifest.config.get(name), settings.get(name)  # people know the corpus by its name
        phrases.append(f"{stage}.{name}: {was} → {now}")
    return phrases


def version(distribution: str) -> str:
    """The version that was installed when this process began; of `unicode` and `letters`, what Python was built with:
    its tables, and what they say of lower case and white space alone."""
    if distribution == "unicode":
        return unicodedata.unidata_version
    if distribution == "letters":
        return fingerprint.letters()
    if noted := loaded.version(distribution):
        return noted
    try:
        return installed(distribution)
    except PackageNotFoundError:
        return "absent"


def when(artifact: Artifact) -> str:
    """When an artifact was made, to the minute."""
    return minute(artifact.manifest.created)
