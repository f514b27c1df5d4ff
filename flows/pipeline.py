"""The flow ``language-model``: the four stages as four Prefect tasks over the same store as the command line.

The store decides what is reused, so Prefect's own result cache stays off: it hashes the text of one function and
nothing that function calls, and it trusts folders that may be gone. A hit shows in the UI as a state named ``Cached``.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Any, cast

import typer
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, Failed
from prefect.tasks import exponential_backoff

from data.errors import Interrupted, RnnlmError, TransientError
from data.store import Artifact, Store
from stages import cli, pipeline
from stages.config import DEFAULT_PRESET, RunConfig, load
from stages.progress import LogLines

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

# Prefect forwards these loggers to its API ([tool.prefect] in pyproject.toml), at the level they have here.
for _floor in ("data", "stages"):
    logging.getLogger(_floor).setLevel(logging.INFO)


def _perform(name: str, config: RunConfig, upstream: dict[str, Artifact], store: Store, forced: bool) -> State[Any]:
    try:
        outcome = pipeline.perform(name, config, upstream, store, LogLines(name), forced=forced)
    except TransientError:
        raise
    except Interrupted as interrupted:
        # Training has put its checkpoint down; now Prefect may see the signal that it asked the process to stop with.
        signal.raise_signal(interrupted.signum)
        raise
    except RnnlmError as error:
        return Failed(message=str(error), data=error)
    message = f"{outcome.reason} · {outcome.artifact.folder}"
    if outcome.state == "cached":
        return Completed(name="Cached", message=message, data=outcome)
    return Completed(message=message, data=outcome)


def _may_succeed_later(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TransientError)


_RETRIES: dict[str, dict[str, Any]] = {
    "download": {
        "retries": 3,
        "retry_delay_seconds": exponential_backoff(backoff_factor=10),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": _may_succeed_later,
    }
}
TASKS = {
    name: task(
        name=name,
        description=stage.summary,
        cache_policy=NO_CACHE,
        persist_result=False,
        **_RETRIES.get(name, {}),
    )(_perform)
    for name, stage in pipeline.STAGES.items()
}


@flow(name="language-model", description="download → tokenize → train → evaluate; only what changed reruns.")
def language_model(
    config: RunConfig = RunConfig(),  # noqa: B008 (frozen)
    force: tuple[str, ...] = (),
    store: str | None = None,
) -> Any:
    """Run the pipeline.

    Args:
        config: the configuration of each stage.
        force: stages to rerun although they are cached.
        store: the folder of the artifacts; by default `$RNNLM_STORE`, else `data/artifacts`.
    """
    opened = cli.open_store(store)
    forced = pipeline.forced(force, None)
    outcomes: list[dict[str, Any]] = []

    def stage(name: str, **upstream: Artifact) -> Artifact:
        state = TASKS[name](name, config, upstream, opened, name in forced, return_state=True)
        outcome = cast("pipeline.Outcome", state.result())
        outcomes.append(outcome.json())
        return outcome.artifact

    try:
        corpus = stage("download")
        tokens = stage("tokenize", download=corpus)
        model = stage("train", tokenize=tokens)
        stage("evaluate", train=model, tokenize=tokens)
    except RnnlmError as error:
        return Failed(message=str(error), data=error)
    return outcomes


def main(
    preset: cli.Preset = DEFAULT_PRESET,
    corpus: cli.Corpus = None,
    set_: cli.Set = None,
    force: cli.Force = None,
    store: cli.StoreAt = None,
) -> None:
    """Run the flow `language-model` here, against the server of PREFECT_API_URL or a temporary one."""
    language_model(load(preset, corpus, set_ or ()), force=tuple(force or ()), store=store)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    cli.enter(app)
