"""The scheduled flow ``retrain``: fetch the corpus again, run the pipeline, promote only what is better.

And ``rollback``, which goes back to the champion before. Both tell Prefect's automations what they did by events:
``rnnlm.model.promoted``, ``rnnlm.model.rejected``, ``rnnlm.model.rolled-back``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from data.errors import RnnlmError, StoreError
from data.store import champions as champion
from data.store.collect import collect
from data.store.folder import open_store
from flows.walk import leave_report, run_name, walk
from stages.config import RunConfig
from stages.pipeline import graph
from stages.promotion import guard
from stages.promotion.judge import Contender, Verdict, judge

if TYPE_CHECKING:
    from pathlib import Path

    from data.store.folder import Store

logger = logging.getLogger(__name__)


@flow(
    name="retrain",
    description="Fetch the corpus again, run the pipeline, promote only what is better.",
    flow_run_name=run_name,
)
def retrain(
    config: RunConfig = RunConfig(),  # noqa: B008 (frozen)
    largest_loss: Annotated[float, Field(ge=0, le=1)] = 0.5,
    store: str | None = None,
) -> Any:
    """One night, and at its end the sweeping that `rnnlm gc` does.

    Args:
        config: the configuration of each stage.
        largest_loss: the share of its characters that a corpus may lose against the champion's before it is refused.
        store: the folder of the artifacts; by default `$RNNLM_STORE`, else `data/artifacts`.
    """
    try:
        opened = open_store(store)
        way = walk(_tonight(config), opened)
        reign = champion.current(opened)
        reigning = _contender(opened, reign.model) if reign else None

        corpus = way.to("download")
        _guard(corpus.folder, reigning.corpus if reigning else None, largest_loss)
        way.to(graph.LAST)
        model, tokens = way.artifacts["train"], way.artifacts["tokenize"]
        key = model.manifest.key
        if known := _known(opened, key, reign):
            return Completed(name="Unchanged", message=f"nothing has changed: {known}")
        verdict = _judge(Contender(model.folder, tokens.folder, corpus.folder), reigning)
        leave_report(opened, way.outcomes, verdict.json())
        if verdict.promoted:
            champion.promote(opened, key, verdict.reason, verdict.json(), over=reign.model if reign else None)
        elif reign:
            champion.reject(opened, key, reign.model, verdict.reason)
        _announce("promoted" if verdict.promoted else "rejected", key, verdict.reason)
        freed = collect(opened, pinned=champion.pinned(opened))
        logger.info("%d folders that nobody needs were removed", len(freed))
    except RnnlmError as error:
        return Failed(message=str(error), data=error)
    return Completed(name="Promoted" if verdict.promoted else "Rejected", message=verdict.reason)


@flow(name="rollback", description="Go back to the champion before the present one.")
def rollback(reason: str = "asked for by hand", store: str | None = None) -> Any:
    """Withdraw the champion.

    Args:
        reason: why, for the history.
        store: the folder of the artifacts; by default `$RNNLM_STORE`, else `data/artifacts`.
    """
    try:
        reign = champion.rollback(open_store(store), reason)
    except RnnlmError as error:
        return Failed(message=str(error), data=error)
    _announce("rolled-back", reign.model, reason)
    return Completed(message=f"{reign.model[:16]} is the champion again")


def _known(store: Store, key: str, reign: champion.Reign | None) -> str:
    """What is to be said of a model that there is nothing to decide about; empty where there is."""
    if reign and reign.model == key:
        return f"the champion {key[:16]} stays"
    if withdrawal := champion.withdrawn(store, key):
        return f"{key[:16]} was withdrawn ({withdrawal.why}); `rnnlm promote` would bring it back"
    if reign and (rejection := champion.rejected(store, key, reign.model)):
        return f"{key[:16]} was compared with this champion before: {rejection.reason}"
    return ""


def _tonight(config: RunConfig) -> RunConfig:
    """The same configuration with the corpus as of this run; a run that is tried again keeps its night."""
    if config.download.as_of:
        return config
    night = flow_run.scheduled_start_time.strftime("%Y-%m-%dT%H:%M:%SZ")
    return config.model_copy(update={"download": config.download.model_copy(update={"as_of": night})})


def _contender(store: Store, key: str) -> Contender:
    """The champion with what it was made from.

    Raises:
        StoreError: some of it is gone or damaged: nobody could say what is better, so that is for a person to decide.
    """
    folders: list[Path] = []
    of = key
    for name, parent in (("train", "tokenize"), ("tokenize", "download"), ("download", "")):
        artifact = store.find(name, of)
        damage = store.damage(artifact) if artifact else "it is gone"
        if artifact is None or damage:
            raise StoreError(
                f"nothing can be compared with the champion {key[:16]}, for its {name} artifact cannot be used "
                f"({damage}): `rnnlm rollback` goes back to the one before"
            )
        folders.append(artifact.folder)
        of = artifact.manifest.parents.get(parent, "")
    return Contender(*folders)


@task(
    name="guard",
    description="Refuse a corpus that must not reach training.",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _guard_task(corpus: Path, accepted: Path | None, largest_loss: float) -> Any:
    try:
        guard.check(corpus, accepted, largest_loss=largest_loss)
    except RnnlmError as error:
        return Failed(message=str(error), data=error)
    return Completed(message="the corpus is fit to train on")


def _guard(corpus: Path, accepted: Path | None, largest_loss: float) -> None:
    _guard_task(corpus, accepted, largest_loss, return_state=True).result()


@task(
    name="judge",
    description="Compare the candidate with the champion.",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _judge(candidate: Contender, reigning: Contender | None) -> Verdict:
    verdict = judge(candidate, reigning)
    logger.info(verdict.reason)
    return verdict


def _announce(what: str, key: str, reason: str) -> None:
    resource = {"prefect.resource.id": f"rnnlm.model.{key[:16]}", "prefect.resource.name": f"model {key[:16]}"}
    emit_event(f"rnnlm.model.{what}", resource, payload={"model": key, "reason": reason})
