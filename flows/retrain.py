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

from data.errors import RnnlmError
from data.store import champions
from data.store.folder import open_store
from flows.walk import leave_report, run_name, walk
from stages.config import RunConfig
from stages.pipeline import graph
from stages.promotion.night import MODEL, Night, corpus_stage, tonight

if TYPE_CHECKING:
    from stages.promotion.judge import Verdict
    from stages.promotion.night import Artifacts

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
        store: the folder of the artifacts; by default `$RNNLM_STORE`, else that of the command line.
    """
    try:
        opened = open_store(store)
        night = Night(opened)
        way = walk(tonight(config, flow_run.scheduled_start_time), opened)
        way.to(corpus_stage())
        _guard(night, way.artifacts, largest_loss, return_state=True).result()
        way.to(graph.LAST)
        if known := night.known(way.artifacts):
            return Completed(name="Unchanged", message=f"nothing has changed: {known}")
        verdict = _judge(night, way.artifacts)
        leave_report(opened, way.outcomes, verdict.json())
        night.settle(way.artifacts, verdict)
        key = way.artifacts[MODEL].manifest.key
        _announce("promoted" if verdict.promoted else "rejected", key, verdict.reason)
        logger.info("%d folders that nobody needs were removed", len(night.collect()))
    except RnnlmError as error:
        return Failed(message=str(error), data=error)
    return Completed(name="Promoted" if verdict.promoted else "Rejected", message=verdict.reason)


@flow(name="rollback", description="Go back to the champion before the present one.")
def rollback(reason: str = "asked for by hand", store: str | None = None) -> Any:
    """Withdraw the champion.

    Args:
        reason: why, for the history.
        store: the folder of the artifacts; by default `$RNNLM_STORE`, else that of the command line.
    """
    try:
        reign = champions.rollback(open_store(store), reason)
    except RnnlmError as error:
        return Failed(message=str(error), data=error)
    _announce("rolled-back", reign.model, reason)
    return Completed(message=f"{reign.model[:16]} is the champion again")


@task(
    name="guard",
    description="Refuse a corpus that must not reach training.",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _guard(night: Night, artifacts: Artifacts, largest_loss: float) -> Any:
    try:
        night.check(artifacts, largest_loss)
    except RnnlmError as error:
        return Failed(message=str(error), data=error)
    return Completed(message="the corpus is fit to train on")


@task(
    name="judge",
    description="Compare the candidate with the champion.",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _judge(night: Night, artifacts: Artifacts) -> Verdict:
    verdict = night.judge(artifacts)
    logger.info(verdict.reason)
    return verdict


def _announce(what: str, key: str, reason: str) -> None:
    resource = {"prefect.resource.id": f"rnnlm.model.{key[:16]}", "prefect.resource.name": f"model {key[:16]}"}
    emit_event(f"rnnlm.model.{what}", resource, payload={"model": key, "reason": reason})
