"""Commands that walk the pipeline, a stage's own among them, and those that say what a walk would do."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data import cluster
from data.errors import ConfigError, StoreError
from data.progress import reporting
from data.shown import line
from data.store.naming import DEFAULT
from stages.cli import again
from stages.cli.options import Configuration, Dask, Events, Force, From, Json, Model, Name, Place, as_corpus, configured
from stages.cli.output import print_json, short, tree, written
from stages.pipeline import graph
from stages.pipeline.lend import training, workers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data.store.folder import Store
    from stages.config import RunConfig
    from stages.pipeline.decide import Upstream
    from stages.pipeline.run import Outcome, Walk
    from stages.report.kept import Kept
    from stages.report.tensorboard import Board

logger = logging.getLogger(__name__)


def verb(until: str) -> Callable[..., None]:
    """The command that walks the pipeline up to a stage; all of them take the same options."""

    @configured
    def command(
        *,
        config: Configuration,
        force: Force = None,
        from_: From = None,
        dask: Dask = None,
        tensorboard: Events = None,
        place: Place,
        as_json: Json = False,
    ) -> None:
        run(until, config, force or [], from_, dask, place, as_json, tensorboard)

    return command


@configured
def evaluate(
    context: typer.Context,
    *,
    on: Annotated[
        str | None,
        typer.Option(
            callback=as_corpus,
            metavar="FILE",
            help="Measure a trained model on this text instead, named as for --corpus.",
        ),
    ] = None,
    adapt: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="With --on: let the model learn from what it has read at this rate, say 3e-4 (dynamic evaluation); "
            "at 0 its n-gram alone learns.",
        ),
    ] = None,
    model: Model = None,
    name: Name = DEFAULT,
    config: Configuration,
    force: Force = None,
    from_: From = None,
    dask: Dask = None,
    place: Place,
    as_json: Json = False,
) -> None:
    """Measure the model and write the report.

    With --on nothing runs and nothing is kept: a model that was trained before, the one of --model, reads the text.
    """
    if on is None:
        if model is not None:
            raise ConfigError("--model names what --on is measured with: give a text with --on FILE, or leave it out")
        if name != DEFAULT:
            raise ConfigError("--name names what --on is measured with: give a text with --on FILE, or leave it out")
        if adapt is not None:
            raise ConfigError("--adapt is for the text of --on: give one with --on FILE, or leave it out")
        run(graph.LAST, config, force or [], from_, dask, place, as_json)
        return
    for option in (*(field.name for field in fields(Configuration)), "force", "from_", "dask"):
        source = context.get_parameter_source(option)
        if source and source.name == "COMMANDLINE":
            flag = f"--{option.strip('_')}"
            raise ConfigError(f"{flag} is for the pipeline, of which --on runs nothing: leave out one of the two")

    from stages.cli import models

    models.measure(on, adapt, model, name, place, as_json)


def run(
    until: str,
    config: Configuration,
    force: Sequence[str],
    from_: str | None,
    dask: str | None,
    place: Place,
    as_json: bool,
    tensorboard: Path | None = None,
) -> None:
    """Walk to a stage and print what comes out: of a whole run its report, else the folder of the artifact."""
    chosen, opened = config.load(), place.open()
    forced = _forced(until, force, from_)
    if dask is not None:
        if not any(graph.STAGES[name].lend is workers for name in graph.order(until)):
            raise ConfigError(f"`rnnlm {until}` reads no parts of a text, which --dask is for: leave it out")
        cluster.check(dask)  # before anything takes hours
    board = None if tensorboard is None else _board(until, tensorboard, config.preset, chosen)
    way = walk(chosen, opened, forced, dask, board)
    made = way.to(until)
    report = keep_report(opened, way.outcomes) if until == graph.LAST else None
    if as_json:
        metrics = report.metrics if report else {}
        answer = written({"stages": [outcome.json() for outcome in way.outcomes], "metrics": metrics})
    elif report:
        answer = f"{report.markdown}\n" + (f"report: {short(report.page)}\n" if report.page else "")
    else:
        answer = f"{short(made.folder)}\n"
    print(answer, end="")
    if all(outcome.state == "cached" for outcome in way.outcomes) and (report is None or report.page) and not board:
        told = "".join(f"{_said(outcome)}\n" for outcome in way.outcomes)
        files = report.files if report else []
        again.remember(answer, told, opened, way.artifacts.values(), chain(config.files(chosen), files))


def _board(until: str, folder: Path, preset: str, config: RunConfig) -> Board:
    """Where TensorBoard is told of a training."""
    if not any(graph.STAGES[name].lend is training for name in graph.order(until)):
        raise ConfigError(f"`rnnlm {until}` trains nothing, which --tensorboard is for: leave it out")

    from stages.report.tensorboard import Board

    return Board(folder, Path(preset).stem, config.train.networks)


def walk(
    config: RunConfig,
    store: Store,
    forced: Collection[str] = (),
    dask: str | None = None,
    board: Board | None = None,
) -> Walk:
    """A walk here and now that says of each stage, on standard error, what became of it; parts of a text are read on
    the cluster ``dask``, and ``board`` is told of a training."""

    from stages.pipeline import run as pipeline

    def perform(name: str, upstream: Upstream) -> Outcome:
        with reporting() as reporter:
            outcome = pipeline.perform(
                name,
                config,
                upstream,
                store,
                reporter(name),
                forced=name in forced,
                dask=dask or "",
                watching=board.watching if board else None,
            )
        if board and graph.STAGES[name].lend is training:
            board.keep(outcome.artifact)
        if graph.STAGES[name].shown:
            print(_said(outcome), file=sys.stderr)
        return outcome

    return pipeline.Walk(perform)


def _said(outcome: Outcome) -> str:
    took = f" in {outcome.seconds:.1f} s" if outcome.state == "ran" else ""
    return f"{outcome.name:9} {outcome.state}{took} ({line(outcome.reason)})"


def keep_report(store: Store, outcomes: Sequence[Outcome], verdict: Mapping[str, Any] | None = None) -> Kept:
    """The run's report; a store that cannot take one, being read-only, costs a warning and not the run."""
    from stages.report import kept

    try:
        return kept.keep(store, outcomes, verdict)
    except StoreError as error:
        logger.warning("%s", error)
        return kept.unkept(outcomes)


def _forced(until: str, force: Sequence[str], from_: str | None) -> set[str]:
    """The stages to rerun on the way to ``until``; one named with --force or --from has to lie on that way."""
    reached = set(graph.order(until))
    named = [*force, *([] if from_ is None else [from_])]
    if beyond := graph.forced(named) - reached:
        raise ConfigError(f"`rnnlm {until}` does not reach the stage {min(beyond)}: rerun that one with `rnnlm run`")
    return graph.forced(set(force), from_) & reached


@configured
def status(config: Configuration, place: Place, as_json: Json = False) -> None:
    """Say what is cached, and why the rest would rerun.

    Nothing runs. Past a stage that has to run, what comes after it cannot be known: the same output ends the rerun.
    """
    from stages.pipeline import decide

    chosen, opened = config.load(), place.open()
    states = list(decide.status(chosen, opened))
    if as_json:
        answer = written({"stages": [state.json() for state in states]})
    else:
        answer = "".join(f"{state.name:9} {state.state:8} {line(state.reason)}\n" for state in states)
    print(answer, end="")
    found = [state.decision.artifact for state in states if state.decision and state.decision.artifact]
    if len(found) == len(states):
        again.remember(answer, "", opened, found, config.files(chosen))


@configured
def explain(
    stage: Annotated[
        str,
        typer.Argument(metavar="STAGE", help=f"{', '.join(graph.shown()[:-1])} or {graph.shown()[-1]}."),
    ],
    config: Configuration,
    place: Place,
    as_json: Json = False,
) -> None:
    """Show what a stage's key is made of.

    Then the closest artifact that the store has of this stage, the last one made of several, and what differs.
    """
    from stages.pipeline import decide

    graph.forced([stage])
    opened = place.open()
    states = {state.name: state for state in decide.status(config.load(), opened)}
    state = states[stage]
    components = state.decision.components if state.decision else None
    nearest = decide.closest(components, opened) if components else None
    if as_json:
        last = {"key": nearest.manifest.key, "components": nearest.manifest.components} if nearest else None
        print_json({**state.json(), "components": components, "closest": last})
        return
    print(f"{stage} is {state.state}: {line(state.reason)}")
    if state.decision is None:
        return
    print(f"\nkey {state.decision.key}")
    print("\n".join(tree(state.decision.components)))
    if nearest is not None:
        print(f"\nthe closest artifact is {nearest.folder}, made {decide.when(nearest)}")
        for phrase in decide.differences(state.decision.config, nearest, state.decision.components, digests=True):
            print(f"  {line(phrase)}")
