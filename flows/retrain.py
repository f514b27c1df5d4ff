"""The scheduled flow ``retrain``: fetch the corpus again, run the pipeline, promote only what is better.

And ``rollback``, which goes back to the champion before. Both tell Prefect's automations what they did by events:
``rnnlm.model.promoted``, ``rnnlm.model.rejected``, ``rnnlm.model.rolled-back``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from data.errors import RnnlmError
from data.store import champions, nights
from data.store.folder import open_store
from flows import own_run
from flows.walk import ended_by, leave_report, run_name, walk
from stages.config import RunConfig
from stages.promotion.night import Night
from stages.report import nights as report
from stages.report import words

if TYPE_CHECKING:
    from stages.promotion.night import Result, Step

logger = logging.getLogger(__name__)


@flow(
    name="retrain",
    description="Fetch the corpus again, run the pipeline, promote only what is better.",
    flow_run_name=run_name,
)
def retrain(
    config: RunConfig = RunConfig(),  # noqa: B008 (frozen)
    name: str = "default",
    reference: str | None = None,
    other_corpus: bool = False,
    largest_loss: Annotated[float, Field(ge=0, le=1)] | None = None,
    store: str | None = None,
    remote: str | None = None,
) -> Any:
    """One night, and at its end the sweeping that `rnnlm gc --keep 10` does.

    Whoever calls this from Python is given what `rnnlm night --json` prints.

    Args:
        config: the configuration of each stage; it has to name the corpus.
        name: of the champion.
        reference: a corpus, fetched once, on which no champion may get worse.
        other_corpus: whether the corpus may be another one than the champion's.
        largest_loss: takes the place of the configuration's `promotion.largest_loss`.
        store: the folder of the artifacts; by default `$RNNLM_STORE`, else that of the command line.
        remote: the address of what machines share; by default `$RNNLM_REMOTE`, else nothing.
    """
    try:
        opened = open_store(store, remote)
        config = own_run.configuration(config)
        if largest_loss is not None:
            rule = config.promotion.model_copy(update={"largest_loss": largest_loss})
            config = config.model_copy(update={"promotion": rule})
        when = flow_run.scheduled_start_time
        night = Night(opened, config, when=when, name=name, reference=reference, other_corpus=other_corpus)
        ended = night.run(partial(walk, store=opened), step=_step, report=partial(leave_report, opened))
    except RnnlmError as error:
        _tell_nights(store, name)
        return ended_by(error)
    _tell_nights(store, name)
    if ended.candidate and ended.decision in ("promoted", "rejected"):
        _announce(ended.decision, ended.candidate.key, ended.reason)
    return Completed(name=ended.decision.title(), message=ended.reason, data=nights.as_json(opened, ended))


@flow(name="rollback", description="Go back to the champion before the present one.")
def rollback(
    reason: str = "asked for by hand", name: str = "default", store: str | None = None, remote: str | None = None
) -> Any:
    """Withdraw the champion.

    Args:
        reason: why, for the history.
        name: of the champion.
        store: the folder of the artifacts; by default `$RNNLM_STORE`, else that of the command line.
        remote: the address of what machines share; by default `$RNNLM_REMOTE`, else nothing.
    """
    try:
        reign = champions.rollback(open_store(store, remote), reason, name=name)
    except RnnlmError as error:
        return Failed(message=str(error), data=error)
    _announce("rolled-back", reign.model, reason)
    return Completed(message=f"{reign.model[:16]} is the champion again{champions.called(name)}")


def _step(name: Step, work: Callable[[], Result]) -> Result:
    """A step of the night, those that look at texts and models as tasks."""
    if name == "settle":
        own_run.check_wanted()
    if name not in _TASKS:
        return work()
    result: Result = _TASKS[name](work, return_state=True).result()
    return result


def _work(work: Callable[[], Any]) -> Any:
    try:
        return Completed(data=work())
    except RnnlmError as error:
        return Failed(message=str(error), data=error)


_TASKS = {
    name: task(name=name, description=description, cache_policy=NO_CACHE, persist_result=False)(_work)
    for name, description in (
        ("guard", "Refuse a corpus that must not reach training."),
        ("judge", "Compare the candidate with the champion."),
    )
}


def _tell_nights(store: str | None, name: str) -> None:
    """Leave the nights so far in Prefect's UI: a table of decisions, and the champion's bits as a picture."""
    try:
        told = nights.read(open_store(store), name)
    except RnnlmError:  # which the run has ended with, too
        return
    if told:
        decided = words.decided(told[-1].decision, told[-1].reason, {"tests": told[-1].tests})
        create_markdown_artifact(report.text(name, told), key=f"nights-{name}", description=decided)


def _announce(what: str, key: str, reason: str) -> None:
    resource = {"prefect.resource.id": f"rnnlm.model.{key[:16]}", "prefect.resource.name": f"model {key[:16]}"}
    emit_event(f"rnnlm.model.{what}", resource, payload={"model": key, "reason": reason})
