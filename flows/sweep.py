"""The flow ``sweep``: what `rnnlm sweep` does, with each training as a task, so that the UI shows them side by side."""

from __future__ import annotations

import json
from contextvars import copy_context
from typing import Annotated, Any, cast

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from pydantic import Field

from data import shown
from data.corpus.address import written
from data.errors import Interrupted, RnnlmError
from data.progress import LogLines
from data.store.folder import open_store
from flows import own_run
from flows.walk import ended_by, leave_report, walk
from stages.config import RunConfig
from stages.pipeline import graph
from stages.report import markdown
from stages.sweep import pool, space, table, worker
from stages.sweep.search import prepare, search
from stages.sweep.trial import Trial


def _run_name() -> str:
    return f"{shown.line(', '.join(flow_run.parameters['vary']))}, {flow_run.scheduled_start_time:%Y-%m-%d %H:%M:%S}"


@flow(
    name="sweep",
    description="Try many settings side by side, stop early what does badly, and say which is best.",
    flow_run_name=_run_name,
)
def sweep(
    vary: Annotated[list[str], Field(min_length=1)],
    config: RunConfig = RunConfig(),  # noqa: B008 (frozen)
    trials: Annotated[int, Field(ge=1, le=100_000)] | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0,
    jobs: Annotated[int, Field(ge=1, le=10_000)] | None = None,
    keep: Annotated[float, Field(ge=0, le=1)] = 0.5,
    store: str | None = None,
    remote: str | None = None,
) -> Any:
    """Run a sweep on the machine of this flow.

    Args:
        vary: `STAGE.FIELD=V1,V2,…` each; with `trials` also `STAGE.FIELD=LOW..HIGH`.
        config: the configuration of each stage, as far as it does not vary.
        trials: how many trials to draw at random; by default the whole grid.
        seed: the same one draws the same trials.
        jobs: trials at a time, which share the cores; by default one per core.
        keep: the share of the trials that goes on, rung by rung, until two are left; 1 stops none early.
        store: the folder of the artifacts; by default `$RNNLM_STORE`, else that of the command line.
        remote: the address of what machines share; by default `$RNNLM_REMOTE`, else nothing.
    """
    try:
        opened = open_store(store, remote)
        config = own_run.configuration(config)
        candidates = [Trial(*found) for found in space.configurations(config, vary, trials, seed)]
        prepare(candidates, lambda chosen: walk(chosen, opened))
        at_a_time = pool.at_a_time(jobs, len(candidates))
        with (
            own_run.watched() as cancelled,
            pool.processes(at_a_time, _as_task(list(candidates[0].values), cancelled.is_set)) as workers,
        ):
            ranked = search(candidates, keep, opened, workers, LogLines("sweep"))

        way = walk(ranked[0].config, opened)
        evaluated = way.to(graph.LAST)
        leave_report(opened, way.outcomes)
        folder = table.publish(ranked, keep, evaluated, opened).folder
    except RnnlmError as error:
        return ended_by(error)
    best = f"best: {space.settings(ranked[0].values)}"
    create_table_artifact(table.rows(ranked), key="sweep", description=best)
    picture = markdown.inline((folder / "curves.svg").read_text(encoding="utf-8"))
    create_markdown_artifact(f"![bits per character by epoch]({picture})", key="sweep-curves", description=best)
    return {"trials": table.results(ranked), "trained": sum(trial.ran for trial in ranked), "artifact": str(folder)}


@task(
    name="trial",
    description="Train a trial as far as it may go for now.",
    task_run_name="{label}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _trial(label: str, job: worker.Job, stopped: worker.Stopped) -> Any:
    answer = worker.do(job, stopped)
    if answer.error == Interrupted.__name__:
        return Cancelled(message=answer.sentence, data=answer)
    if answer.error:
        return Failed(message=answer.sentence, data=answer)
    return Completed(name="Completed" if answer.ran else "Cached", message=f"model {answer.key[:16]}", data=answer)


def _as_task(fields: list[str], cancelled: worker.Stopped) -> worker.Do:
    """What does a trial's job as a task of this flow run, from whatever thread; its label has these fields' values."""
    context = copy_context()

    def do(job: worker.Job, stopped: worker.Stopped) -> worker.Answer:
        config = json.loads(job.config)
        named = [name.partition(".") for name in fields]
        label = ", ".join(f"{field}={written(str(config[stage][field]))}" for stage, _, field in named)
        label += f", {config['train']['epochs']} epochs"
        state = context.copy().run(_trial, label, job, lambda: stopped() or cancelled(), return_state=True)
        answer = state.result(raise_on_failure=False)
        if isinstance(answer, BaseException):
            raise answer
        return cast("worker.Answer", answer)

    return do
