"""The four stages, declared once, and the one place that decides between a hit, a miss and a forced rerun.

    download → tokenize → train → evaluate

The command line walks this graph directly (`run`), the Prefect flow walks it as tasks (`perform`, once per stage).
"""

from __future__ import annotations

import logging
import platform
import shutil
import subprocess
import time
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import data
from data.corpus import catalogue as corpora
from data.errors import ConfigError, CorpusError
from data.moment import minute, now
from data.progress import Progress
from data.store import fingerprint
from data.store.artifact import Artifact, Manifest
from data.store.folder import Store
from data.tables.tokens import IndexTable
from stages.config import DownloadConfig, RunConfig, StageConfig, TrainConfig
from stages.download import download
from stages.evaluate import evaluate
from stages.lm.baselines import baselines
from stages.lm.parameters import Architecture
from stages.tokenize import tokenize
from stages.train import train
from stages.training import cores, device

logger = logging.getLogger(__name__)

ROOT = Path(data.__file__).parent.parent
PYTHON = ".".join(platform.python_version_tuple()[:2])


@dataclass(frozen=True)
class Stage:
    """One stage: what it runs, what it reads, and what its key is made of beside that."""

    name: str
    summary: str
    """One sentence for `rnnlm --help`."""
    function: Callable[..., Mapping[str, float] | None]
    """``function(config, folders of the inputs, out=, progress=, …)`` writes its files into ``out``."""
    inputs: Mapping[str, tuple[str, ...]]
    """Upstream stage → those of its files whose content counts."""
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What it reads of `PARTS` → those of its files. They have no place in its key, which holds all that theirs do: a
    stage imports their code, and reads what they read."""
    libraries: tuple[str, ...] = ()
    """Distributions whose numerics or formats the outputs depend on."""
    version: int = 1
    """Raised when the outputs change their meaning though the code's digest cannot show it."""
    outside_key: frozenset[str] = frozenset()
    """Fields that cannot change the result, or that another component of the key stands for."""


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "download",
            "Get the corpus and check that it is text.",
            download,
            inputs={},
            outside_key=frozenset({"corpus", "as_of"}),
        ),
        Stage(
            "tokenize",
            "Turn the corpus into a vocabulary and an index table.",
            tokenize,
            inputs={"download": ("corpus.txt",)},
            libraries=("numpy", "pyarrow", "unicode"),
        ),
        Stage(
            "train",
            "Train the model, or go on where training stopped.",
            train,
            inputs={"tokenize": ("tokens.arrow", "vocab.arrow")},
            libraries=("mxnet", "numpy", "pyarrow", "safetensors"),
            outside_key=frozenset({"device"}),
        ),
        Stage(
            "evaluate",
            "Measure the model and write the report.",
            evaluate,
            inputs={
                "train": ("model.safetensors", "config.json", "vocab.arrow", "history.arrow"),
                "tokenize": ("tokens.arrow",),
            },
            parts={"baselines": ("baselines.json",)},
            libraries=("matplotlib", "numpy", "pillow", "unicode"),
        ),
    )
}
PARTS: dict[str, Stage] = {
    "baselines": Stage(
        "baselines",
        "Measure what the text costs without a model.",
        baselines,
        inputs={"tokenize": ("tokens.arrow",)},
        libraries=("numpy",),
    )
}
"""Artifacts that a stage finds or makes when it runs. No stages of their own, they have no settings, and are shared by
every run that needs the same."""
Upstream = Mapping[str, Artifact]
Reporter = Callable[[str], Progress]


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
    device: device.Device | None = None
    damaged: bool = False
    """Whether there is an artifact with this key that cannot be used."""


@dataclass(frozen=True)
class Outcome:
    """What became of a stage in a run."""

    name: str
    state: Literal["ran", "cached"]
    artifact: Artifact
    seconds: float
    reason: str

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "key": self.artifact.manifest.key,
            "artifact": str(self.artifact.folder),
            "seconds": round(self.seconds, 3),
            "reason": self.reason,
        }


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


def run(
    config: RunConfig,
    store: Store,
    reporter: Reporter,
    *,
    until: str = "evaluate",
    force: Collection[str] = (),
) -> Iterator[Outcome]:
    """Walk the graph up to the stage ``until``, one outcome per stage as it comes."""
    upstream: dict[str, Artifact] = {}
    for name in needed(until):
        outcome = perform(name, config, upstream, store, reporter(name), forced=name in force)
        upstream[name] = outcome.artifact
        yield outcome


def needed(until: str) -> list[str]:
    """The stage and all before it, in order."""
    names = list(STAGES)
    return names[: names.index(until) + 1]


def forced(force: Collection[str], from_stage: str | None) -> set[str]:
    """The stages that ``--force`` and ``--from`` rerun.

    Raises:
        ConfigError: a name that is no stage.
    """
    names = list(STAGES)
    for name in [*force, *([] if from_stage is None else [from_stage])]:
        if name not in names:
            raise ConfigError(f"there is no stage {name!r}: the stages are {', '.join(names)}")
    return set(force) | set(() if from_stage is None else names[names.index(from_stage) :])


def perform(
    name: str, config: RunConfig, upstream: Upstream, store: Store, progress: Progress, *, forced: bool = False
) -> Outcome:
    """Reuse a stage's artifact, or run the stage and publish one."""
    decision = decide(name, config, upstream, store)
    if decision.artifact is not None and not forced:
        return _reuse(decision, store)

    def waiting() -> None:
        logger.info("%s: another process is at work on the same artifact; waiting for it", name)

    with store.lock(name, decision.key, waiting):
        # Another process may have published while this one waited for the lock.
        present = decide(name, config, upstream, store)
        if present.key != decision.key:
            raise CorpusError(f"{config.download.corpus} was changed while it was read: run again")
        if present.artifact is not None and not forced:
            return _reuse(present, store)
        if decision.damaged:
            logger.warning("%s: the artifact is %s; running the stage again", name, decision.reason)
        # Taking the lock has left a trace of this attempt: why it was made is what was found before.
        present = replace(present, reason=decision.reason)
        for part in present.stage.parts:
            upstream = {**upstream, part: perform(part, config, upstream, store, progress).artifact}
        if not isinstance(decision.config, TrainConfig):
            return _execute(present, upstream, store, progress, forced)
        # Runs of different lengths share their checkpoints, and the longer one goes on where the shorter one ended.
        with store.lock("checkpoints", _identity(decision), waiting):
            return _execute(present, upstream, store, progress, forced)


def decide(name: str, config: RunConfig, upstream: Upstream, store: Store) -> Decision:
    """A stage's key, and whether the store holds a sound artifact for it; ``upstream`` holds what it reads."""
    stage = STAGES.get(name) or PARTS[name]
    own: StageConfig = getattr(config, name, StageConfig())
    components: dict[str, Any] = {
        "stage": name,
        "version": stage.version,
        "config": {key: value for key, value in own.model_dump(mode="json").items() if key not in stage.outside_key},
        "inputs": {
            f"{parent}/{file}": upstream[parent].sha256(file)
            for parent, files in stage.inputs.items()
            for file in files
        },
        "code": fingerprint.code(stage.function.__module__, ROOT),
        # Another Python parses the same code to another tree, so that the digests of code are its own.
        "libraries": {"python": PYTHON, **{library: _version(library) for library in stage.libraries}},
    }
    on: device.Device | None = None
    if isinstance(own, DownloadConfig):
        components["source"] = corpora.resolve(own.corpus).identity
        if not components["source"].startswith("sha256:"):
            components["as_of"] = own.as_of
    elif isinstance(own, TrainConfig):
        on = device.resolve(own.device)
        components["device"] = on.kind
    key = fingerprint.digest(components)
    artifact, damage = store.find(name, key), None
    if artifact is not None:
        lost = _read_downstream(name) - artifact.manifest.outputs.keys()
        damage = f"its manifest does not name {min(lost)}" if lost else store.damage(artifact)
    elif store.folder(name, key).exists():
        damage = "its manifest cannot be read"
    if damage:
        artifact, reason = None, f"damaged: {damage}"
    elif artifact is None:
        nearest = closest(components, store)
        if store.began(name, key):
            reason = "it was never finished, or its artifact is gone"
        else:
            reason = "; ".join(differences(own, nearest, components)) if nearest else "no artifact of this stage yet"
    else:
        reason = f"unchanged since {when(artifact)}"
    return Decision(stage, own, key, components, artifact, reason, on, damaged=damage is not None)


def status(config: RunConfig, store: Store) -> Iterator[Status]:
    """Each stage's state; past the first one that is not cached, what comes after it cannot be known."""
    upstream: dict[str, Artifact] = {}
    for name, stage in STAGES.items():
        absent = [parent for parent in stage.inputs if parent not in upstream]
        known = bool(store.artifacts(name))
        if absent:
            reason = f"{absent[0]} has to run first; whether this reruns depends on what comes out"
            yield Status(name, "stale" if known else "missing", reason, None)
            continue
        decision = decide(name, config, upstream, store)
        if decision.artifact is not None:
            upstream[name] = decision.artifact
            yield Status(name, "cached", decision.reason, decision)
        else:
            yield Status(name, "stale" if known else "missing", decision.reason, decision)


def _reuse(decision: Decision, store: Store) -> Outcome:
    assert decision.artifact is not None
    store.touch(decision.artifact)
    return Outcome(decision.stage.name, "cached", decision.artifact, 0.0, decision.reason)


def _identity(decision: Decision) -> str:
    """What a training run is but for its length: more epochs go on from where fewer ended.

    Where the learning rate falls towards a last epoch, that one counts, whichever field it is asked for with.
    """
    assert isinstance(decision.config, TrainConfig)
    own = {**decision.components["config"], "epochs": None}
    if decision.config.horizon is not None:
        own["decay_epochs"] = decision.config.horizon
    return fingerprint.digest({**decision.components, "config": own})


def _execute(decision: Decision, upstream: Upstream, store: Store, progress: Progress, forced: bool) -> Outcome:
    stage, config = decision.stage, decision.config
    extra: dict[str, Any] = {}
    told: AbstractContextManager[None] = nullcontext()
    if isinstance(config, DownloadConfig) and not forced:
        extra = {"previous": _last_download(config.corpus, store)}
    elif isinstance(config, TrainConfig):
        checkpoints = store.checkpoints(_identity(decision))
        if forced:
            shutil.rmtree(checkpoints, ignore_errors=True)  # to train again is to begin again
        extra = {"checkpoints": checkpoints, "device": decision.device}
        tokens = IndexTable.open(upstream["tokenize"].folder / "tokens.arrow")
        told = cores.told(Architecture.of(config, tokens.vocab_size))
    with store.building(stage.name, decision.key) as folder, told:
        began = time.perf_counter()
        keywords = {"download": "corpus", "tokenize": "tokens", "train": "model", "baselines": "baselines"}
        folders = {keywords[parent]: upstream[parent].folder for parent in (*stage.inputs, *stage.parts)}
        timing = stage.function(config, **folders, out=folder, progress=progress, **extra) or {}
        seconds = time.perf_counter() - began
        if isinstance(config, DownloadConfig):
            _check_unchanged(config.corpus, decision.components["source"])
        outputs = {
            path.name: {"bytes": path.stat().st_size, "sha256": fingerprint.file_digest(path)}
            for path in sorted(folder.iterdir())
        }
        manifest = Manifest.model_validate(
            {
                "stage": stage.name,
                "key": decision.key,
                "components": decision.components,
                "outputs": outputs,
                "config": config.model_dump(mode="json"),
                "parents": {parent: upstream[parent].manifest.key for parent in (*stage.inputs, *stage.parts)},
                "device": decision.device.kind if decision.device else None,
                "seed": getattr(config, "seed", None),
                "versions": {"python": platform.python_version(), "rnnlm": _version("rnnlm")},
                "git": _git(),
                "created": now(),
                "timing": {"seconds": round(seconds, 3), **timing},
            }
        )
        artifact = store.publish(folder, manifest)
    return Outcome(stage.name, "ran", artifact, seconds, "forced" if forced else decision.reason)


def _check_unchanged(corpus: str, identity: str) -> None:
    if corpora.resolve(corpus).identity != identity:
        raise CorpusError(f"{corpus} was changed while it was read: run again")


def _read_downstream(name: str) -> set[str]:
    """The files of a stage that others read."""
    return {file for stage in STAGES.values() for file in {**stage.inputs, **stage.parts}.get(name, ())}


def _last_download(corpus: str, store: Store) -> Path | None:
    """The folder of the last sound download of this corpus, which may still be what its address has."""
    found = (artifact for artifact in store.artifacts("download") if artifact.manifest.config.get("corpus") == corpus)
    return next((artifact.folder for artifact in found if store.damage(artifact) is None), None)


def closest(components: Mapping[str, Any], store: Store) -> Artifact | None:
    """The same stage's artifact that differs in the fewest places; of several, the last one made."""
    stage = components["stage"]
    return min(
        store.artifacts(stage),
        key=lambda artifact: len(fingerprint.difference(stage, artifact.manifest.components, components)),
        default=None,
    )


def differences(config: StageConfig, artifact: Artifact, components: Mapping[str, Any]) -> list[str]:
    """In words, what sets a stage's key components apart from those of an artifact."""
    phrases = fingerprint.difference(components["stage"], artifact.manifest.components, components)
    if isinstance(config, DownloadConfig):
        before, corpus = artifact.manifest.config.get("corpus"), config.corpus
        change = f"the bytes of {corpus} changed" if before == corpus else f"download.corpus: {before} → {corpus}"
        phrases = [change if phrase.startswith("source: ") else phrase for phrase in phrases]
    return phrases


def when(artifact: Artifact) -> str:
    """When an artifact was made, to the minute."""
    return minute(artifact.manifest.created)


def _version(distribution: str) -> str:
    """The installed version; MXNet's builds for a GPU go by other names."""
    if distribution == "unicode":  # lower-casing and white space follow the tables that Python was built with
        return unicodedata.unidata_version
    if distribution == "mxnet":
        return device.build_version()
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


def _git() -> dict[str, Any] | None:
    """The checkout's commit and whether it has changes; None outside of one."""

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
