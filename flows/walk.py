"""The stages as Prefect tasks, and one walk over them; every flow takes its steps from here.

The store decides what is reused, so Prefect's own result cache stays off: it hashes the text of one function and
nothing that function calls, and it trusts folders that may be gone. A hit shows in the UI as a state named ``Cached``.
"""

from __future__ import annotations

import logging
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.settings import PREFECT_LOGGING_LEVEL
from prefect.states import Cancelled, Completed, Failed
from prefect.tasks import exponential_backoff

from data.corpus.address import written
from data.errors import Interrupted, RnnlmError, TransientError
from data.progress import LogLines
from flows import own_run
from stages.pipeline import graph
from stages.pipeline import run as pipeline
from stages.pipeline.settings import parse
from stages.report import kept, markdown, words
from stages.report.gather import gather

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from threading import Event
    from uuid import UUID

    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    from data.store.artifact import Artifact
    from data.store.folder import Store
    from stages.config import RunConfig
    from stages.pipeline.decide import Upstream

logger = logging.getLogger(__name__)

# Prefect forwards these loggers to its API ([tool.prefect] in pyproject.toml), at the level they have here: its own.
for _floor in ("data", "stages", "flows"):
    logging.getLogger(_floor).setLevel(PREFECT_LOGGING_LEVEL.value())


def _is_no_sentence(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], RnnlmError))


# Under a worker Prefect would end the log of a run that failed with the traceback of what its state has said by then.
logging.getLogger("prefect.flow_runs").addFilter(_is_no_sentence)


def walk(config: RunConfig, store: Store, forced: Collection[str] = ()) -> pipeline.Walk:
    """A walk on which each stage that is shown is a task of the flow run.

    What goes wrong, and the user can mend, comes as a `RnnlmError`, after the task has failed with that sentence.
    """

    def one(name: str, upstream: Upstream) -> pipeline.Outcome:
        if name not in TASKS:
            return pipeline.perform(name, config, upstream, store, LogLines(name), forced=name in forced)
        state = TASKS[name](name, config, dict(upstream), store, name in forced, return_state=True)
        return cast("pipeline.Outcome", state.result())

    return pipeline.Walk(one)


def leave_report(store: Store, outcomes: Sequence[pipeline.Outcome], verdict: Mapping[str, Any] | None = None) -> None:
    """Leave a page in the store and the same in Prefect's UI, once all stages are done."""
    page = kept.keep(store, outcomes, verdict).page
    report = gather(outcomes, verdict)
    said = report.summary
    if verdict:
        said = words.decided("promoted" if verdict["promoted"] else "rejected", verdict["reason"], verdict)
    create_markdown_artifact(markdown.artifact(report), key="report", description=said)
    logger.info("report: %s", page)


class Shown(LogLines):
    """Progress as log lines and, once it takes a while, as a progress artifact of the run; and where work ends that
    was cancelled without Prefect's ending it."""

    def __init__(self, stage: str, cancelled: Event, seconds_between: float = 5.0) -> None:
        super().__init__(stage)
        self._cancelled = cancelled
        self._artifact: UUID | None = None
        self._seconds_between = seconds_between
        self._due = time.monotonic() + seconds_between

    def __call__(self, done: float, total: float, figures: str) -> None:
        super().__call__(done, total, figures)
        if self._cancelled.is_set():
            self._cancelled.clear()
            _end()
        if not total or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._seconds_between
        self._show(min(100.0, 100 * done / total), figures)

    def finish(self) -> None:
        if self._artifact is not None:
            self._show(100.0, "done")

    def _show(self, percent: float, figures: str) -> None:
        try:
            if self._artifact is None:
                key = f"{self._stage}-progress"
                self._artifact = cast("UUID", create_progress_artifact(percent, key=key, description=figures))
            else:
                update_progress_artifact(artifact_id=self._artifact, progress=percent, description=figures)
        except Exception as error:  # whatever is wrong with the server: work that cannot be shown goes on all the same
            self._due = time.monotonic() + 60
            logger.warning("progress cannot be shown (%s)", error)


def _end() -> None:
    try:
        signal.raise_signal(signal.SIGTERM)  # which training notes, to put its checkpoint down first
    except TerminationSignal:
        raise Interrupted("the run was cancelled; what was finished is kept", signal.SIGTERM) from None


def run_name() -> str:
    """A flow run's name: what it trains, and on what."""
    given = flow_run.parameters["config"]
    config = parse(given) if isinstance(given, dict) else given
    with suppress(RnnlmError):  # which the run itself will end with
        config = own_run.configuration(config)
    corpus = written(config.download.corpus).rstrip("/").rpartition("/")[2]
    networks = f"{config.train.networks} × " if config.train.networks > 1 else ""
    model = f"{networks}{config.train.cell} {config.train.hidden_size} × {config.train.epochs} epochs"
    return f"{corpus}: {model}, {flow_run.scheduled_start_time:%Y-%m-%d %H:%M:%S}"


def ended_by(error: RnnlmError) -> State[Any]:
    """How a run or a task ends that met this error: with the error's sentence as the state's message."""
    if isinstance(error, Interrupted):
        return Cancelled(message=str(error), data=error)
    return Failed(message=str(error), data=error)


def _run_stage(name: str, config: RunConfig, upstream: dict[str, Artifact], store: Store, forced: bool) -> State[Any]:
    try:
        with own_run.watched() as cancelled:
            progress = Shown(name, cancelled)
            outcome = pipeline.perform(name, config, upstream, store, progress, forced=forced)
    except TransientError:
        raise
    except Interrupted as interrupted:
        logger.info("%s", interrupted)
        # Training has put its checkpoint down. Its noting of signals hid from Prefect's runner that this process would
        # hear of a cancellation, so Prefect takes the signal for anybody's, and the run for crashed: it is asked here.
        if own_run.cancelled():
            return ended_by(interrupted)
        signal.raise_signal(interrupted.signum)
        raise
    except RnnlmError as error:
        return ended_by(error)
    progress.finish()
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
        # A host that sends a byte now and then must not hold the only place that a night has.
        "timeout_seconds": 3600,
    }
}
TASKS = {
    name: task(
        name=name,
        description=stage.summary,
        cache_policy=NO_CACHE,
        persist_result=False,
        **_RETRIES.get(name, {}),
    )(_run_stage)
    for name, stage in graph.STAGES.items()
    if stage.shown
}
"""Stage → task, of those that are shown."""
