"""The run itself: a walk over the graph on which each stage is reused, or run and published.

The command line walks directly (`run`), a flow walks the same way with each stage as a task (`Walk`).
"""

from __future__ import annotations

import logging
import platform
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from data.errors import CorpusError, StoreError, TrainingError
from data.moment import now
from data.store import fingerprint, loaded, locks, mirror
from data.store.manifest import Manifest
from stages.pipeline import graph
from stages.pipeline.decide import Decision, decide, fault, modules, recorded, version
from stages.pipeline.lend import Attempt

if TYPE_CHECKING:
    from data.progress import Progress, Watch
    from data.store.artifact import Artifact
    from data.store.folder import Store
    from stages.config import RunConfig
    from stages.pipeline.decide import Upstream

logger = logging.getLogger(__name__)

for _stage in graph.STAGES.values():  # before the first of them begins: then an edit of any is noticed
    import_module(_stage.function.__module__)


@dataclass(frozen=True)
class Outcome:
    """What became of a stage in a run."""

    name: str
    state: Literal["ran", "cached"]
    artifact: Artifact
    seconds: float
    """Of work; 0 where it was cached."""
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


class Walk:
    """A walk over the graph: each stage once, after what it reads, and what became of it.

    Args:
        perform: ``perform(name, upstream)`` runs or reuses one stage, given the artifacts that it reads.
    """

    def __init__(self, perform: Callable[[str, Upstream], Outcome]) -> None:
        self._perform = perform
        self.artifacts: dict[str, Artifact] = {}
        """Stage → artifact, of all stages so far."""
        self.outcomes: list[Outcome] = []
        """Of the stages that are shown."""
        self._held: list[locks.Hold | None] = []
        """What has been walked to stays, whoever collects meanwhile, until nobody has this walk any more."""

    def steps(self, until: str) -> Iterator[Outcome]:
        """Go on to the stage ``until``, one outcome per shown stage as it comes."""
        for name in graph.order(until):
            if name in self.artifacts:
                continue
            stage = graph.STAGES[name]
            outcome = self._there(name, {one.stage: self.artifacts[one.stage] for one in stage.inputs.values()})
            self.artifacts[name] = outcome.artifact
            if stage.shown:
                self.outcomes.append(outcome)
                yield outcome

    def _there(self, name: str, upstream: Upstream) -> Outcome:
        while True:
            outcome = self._perform(name, upstream)
            with suppress(FileNotFoundError):  # it was collected as it was made
                self._held.append(locks.hold(outcome.artifact.folder))
                return outcome

    def to(self, until: str) -> Artifact:
        """Go on to the stage ``until``; its artifact."""
        for _ in self.steps(until):
            pass
        return self.artifacts[until]

    def upstream(self, name: str) -> dict[str, Artifact]:
        """Go on to all that a stage reads, and not to the stage itself; stage → artifact, of what it reads."""
        return {one.stage: self.to(one.stage) for one in graph.STAGES[name].inputs.values()}


def run(
    config: RunConfig,
    store: Store,
    reporter: Callable[[str], Progress],
    *,
    until: str = graph.LAST,
    force: Collection[str] = (),
) -> Iterator[Outcome]:
    """Walk here and now to the stage ``until``, one outcome per shown stage as it comes."""

    def one(name: str, upstream: Upstream) -> Outcome:
        return perform(name, config, upstream, store, reporter(name), forced=name in force)

    yield from Walk(one).steps(until)


def perform(
    name: str,
    config: RunConfig,
    upstream: Upstream,
    store: Store,
    progress: Progress,
    *,
    forced: bool = False,
    dask: str = "",
    watching: Callable[[str, int], Watch] | None = None,
) -> Outcome:
    """Reuse a stage's artifact, or run the stage and publish one.

    Args:
        name: of the stage.
        config: of the whole run.
        upstream: what the stage reads.
        store: where its artifact is found or published.
        progress: is told how far it is.
        forced: run it although it is cached.
        dask: the cluster that reads parts of a text, as `data.cluster.client` has it; the same comes out.
        watching: who is told of each epoch of a training, see `stages.pipeline.lend.Attempt`.

    Raises:
        RnnlmError: what the user can mend; the last good artifact stays in place.
    """
    decision = decide(name, config, upstream, store)
    if not forced and (reused := _reuse(decision, store)):
        return reused
    sound = {one: _sound(artifact, config, store, progress) for one, artifact in upstream.items()}
    if sound != upstream:
        return perform(name, config, sound, store, progress, forced=forced, dask=dask, watching=watching)

    def waiting() -> None:
        logger.info("%s: another process is at work on the same artifact; waiting for it", name)

    with store.lock(name, decision.key, waiting):
        # Another process may have published while this one waited for the lock.
        present = decide(name, config, upstream, store)
        _still_read(decision, present.components["sources"])
        if not forced and (reused := _reuse(present, store)):
            return reused
        brought = None if forced else mirror.bring(store, name, decision.key)
        if brought:
            present = decide(name, config, upstream, store)
            if reused := _reuse(replace(present, reason=f"brought from the remote, {present.reason}"), store):
                return reused
        if decision.damaged:
            logger.warning("%s: the artifact is %s; running the stage again", name, decision.reason)
        # Taking the lock has left a trace of this attempt: why it was made is what was found before.
        present = replace(present, reason=decision.reason)
        folders = {keyword: upstream[one.stage].folder for keyword, one in present.stage.inputs.items()}
        components = present.components
        attempt = Attempt(present.config, components, folders, store, forced, waiting, dask, watching)
        return _execute(present, attempt, upstream, progress, instead=forced or bool(brought))


def _sound(artifact: Artifact, config: RunConfig, store: Store, progress: Progress) -> Artifact:
    """An artifact that is about to be read; made again where its files are not what was published, or not sound."""
    stage, key = artifact.manifest.stage, artifact.manifest.key
    found = store.find(stage, key) or artifact  # it may have been made again meanwhile
    if not (wrong := store.damage(found, again=True) or fault(found)):
        return found
    if (brought := mirror.bring(store, stage, key)) and not fault(brought):
        return brought
    before = {one: made for one, of in found.manifest.parents.items() if (made := store.find(one, of))}
    if before.keys() != found.manifest.parents.keys():
        raise StoreError(wrong)
    logger.warning("%s: the artifact is damaged: %s; running the stage again", stage, wrong)
    again = perform(stage, config, before, store, progress, forced=True).artifact
    if wrong := store.damage(again, again=True) or fault(again):
        raise StoreError(wrong)
    return again


def _reuse(decision: Decision, store: Store) -> Outcome | None:
    """What is there to be reused, if it is there still."""
    if decision.artifact is None:
        return None
    still_as_loaded(decision)
    if not mirror.used(store, decision.artifact):
        return None  # it was collected at this moment
    return Outcome(decision.stage.name, "cached", decision.artifact, 0.0, decision.reason)


def _execute(decision: Decision, attempt: Attempt, upstream: Upstream, progress: Progress, *, instead: bool) -> Outcome:
    """Run a stage and publish what it makes; ``instead`` of what the remote has, or only where it has nothing."""
    stage, config, store = decision.stage, decision.config, attempt.store
    still_as_loaded(decision)
    with stage.lend(attempt) as lent, store.building(stage.name, decision.key) as folder:
        began = time.perf_counter()
        try:
            timing = stage.function(config, **attempt.folders, **lent, out=folder, progress=progress) or {}
        except MemoryError as error:
            raise TrainingError(f"{stage.name}: this machine has too little memory for that ({error})") from None
        seconds = time.perf_counter() - began
        still_as_loaded(decision)
        sources = {field: value for field, value in stage.sources(config).items() if value is not None}
        _still_read(decision, sources)
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
                "config": recorded(config),
                "parents": {one.stage: upstream[one.stage].manifest.key for one in stage.inputs.values()},
                "device": sources.get("device"),
                "seed": getattr(config, "seed", None),
                "versions": {"python": platform.python_version(), "rnnlm": version("rnnlm")},
                "git": _git(),
                "created": now(),
                "timing": {"seconds": round(seconds, 3), **timing},
            }
        )
        artifact = store.publish(folder, manifest)
    artifact = mirror.send(store, artifact, instead=instead)
    return Outcome(stage.name, "ran", artifact, seconds, "forced" if attempt.forced else decision.reason)


def _still_read(decision: Decision, sources: Mapping[str, Any]) -> None:
    """See that what a stage reads from outside of the store is what its key was made of."""
    for field, before in decision.components["sources"].items():
        if before != sources.get(field):
            raise CorpusError(f"{recorded(decision.config)[field]} was changed while it was read: run again")


def still_as_loaded(decision: Decision) -> None:
    """See that the code and the libraries of a stage are those that this process has loaded and made the key of.

    What it holds in memory is at best all old: a part that it loads only now is new.

    Raises:
        StoreError: one was edited or exchanged.
    """
    stage, config = decision.stage, decision.config
    if change := fingerprint.edited(*modules(stage, config)) or loaded.exchanged(stage.libraries(config)):
        raise StoreError(f"{change}: run again in a new process, and what was finished is kept")


def _git() -> dict[str, Any] | None:
    """The clone's commit and whether it has changes; None outside of one."""
    if not fingerprint.in_clone():
        return None

    def ask(*arguments: str) -> str:
        # Without its optional locks, or who kills this process leaves one in the user's clone.
        command = ["git", "--no-optional-locks", "-C", str(fingerprint.ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except subprocess.CalledProcessError as error:
        if (fingerprint.ROOT / ".git").exists():
            said = error.stderr.partition("\n")[0]  # another owner's clone for one: below that, how to allow it
            _say_once(f"manifests will not name the commit, for git does not tell it ({said}): ask `git status` why")
        return None
    except (OSError, subprocess.SubprocessError):
        return None


@cache
def _say_once(sentence: str) -> None:
    logger.warning("%s", sentence)
