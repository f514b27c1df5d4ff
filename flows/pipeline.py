"""The flow ``language-model``: the four stages as four Prefect tasks over the same store as the command line."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import typer
from prefect import flow
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from data.corpus.address import written
from data.errors import ConfigError, RnnlmError, ServerError
from data.store.folder import open_store
from flows import own_run
from flows.walk import ended_by, leave_report, run_name, walk
from stages.cli.app import enter
from stages.cli.options import Configuration, Force, Place, configured
from stages.config import RunConfig
from stages.pipeline import graph
from stages.pipeline.decide import status

if TYPE_CHECKING:
    Stage = str
else:
    Stage = Literal[tuple(graph.shown())]  # so that Prefect's form offers them, and takes nothing else


@flow(
    name="language-model",
    description="download → tokenize → train → evaluate; only what changed reruns.",
    flow_run_name=run_name,
)
def language_model(
    config: RunConfig = RunConfig(),  # noqa: B008 (frozen)
    force: tuple[Stage, ...] = (),
    store: str | None = None,
    remote: str | None = None,
) -> Any:
    """Run the pipeline.

    Args:
        config: the configuration of each stage.
        force: stages to rerun although they are cached.
        store: the folder of the artifacts; by default `$RNNLM_STORE`, else that of the command line.
        remote: the address of what machines share; by default `$RNNLM_REMOTE`, else nothing.
    """
    try:
        opened = open_store(store, remote)
        way = walk(own_run.configuration(config), opened, graph.forced(force))
        way.to(graph.LAST)
        leave_report(opened, way.outcomes)
    except RnnlmError as error:
        return ended_by(error)
    return [outcome.json() for outcome in way.outcomes]


@configured
def main(*, config: Configuration, force: Force = None, place: Place) -> None:
    """Run the flow `language-model` here, against the server of PREFECT_API_URL or a temporary one."""
    gc.freeze()  # what was imported stays: neither the run nor the end of the process looks through it for garbage
    chosen = config.load()
    if written(chosen.download.corpus) != chosen.download.corpus:
        raise ConfigError(
            f"the address {chosen.download.corpus} says what nobody else may read, and Prefect would show it with the "
            "run's parameters: put it into the environment and write ${NAME} in its place"
        )
    graph.forced(force or ())
    # Without work a run is over before its heart beats twice, and would wait a second for the thread that beats it.
    still = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None} if not force and _all_cached(chosen, place) else {}
    try:
        with temporary_settings(still):
            language_model(chosen, force=tuple(force or ()), store=place.store, remote=place.remote)
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        raise ServerError(
            f"the Prefect server at {PREFECT_API_URL.value()} does not answer: start it (`prefect server start`), or "
            "unset PREFECT_API_URL to run with a temporary one"
        ) from error


def _all_cached(config: RunConfig, place: Place) -> bool:
    with suppress(RnnlmError):  # which the run itself will end with
        return all(stage.state == "cached" for stage in status(config, place.open()))
    return False


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    enter(app)
