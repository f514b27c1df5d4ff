"""The command that tries many settings side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from data.errors import ConfigError
from data.progress import reporting
from data.store.folder import open_store
from stages.cli import runs
from stages.cli.options import Configuration, Json, StoreAt, configured
from stages.cli.output import print_json, short
from stages.pipeline import graph


@configured
def sweep(
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="STAGE.FIELD=V1,V2,…",
            help="Try these values of a field; with --trials also LOW..HIGH, drawn evenly, or evenly in the logarithm "
            "where HIGH is ten times a LOW above 0, or more; repeatable.",
        ),
    ],
    *,
    trials: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Draw N trials at random. [default: the grid]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="The same seed draws the same trials.")] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trials at a time, which share the cores. [default: one per core]"),
    ] = None,
    keep: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="The share of the trials that goes on, rung by rung, until two are left; 1 stops none early.",
        ),
    ] = 0.5,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Train on the Dask cluster of this scheduler, whose workers see the store under the same path.",
        ),
    ] = None,
    config: Configuration,
    store: StoreAt = None,
    as_json: Json = False,
) -> None:
    """Try many settings side by side, stop early what does badly, and say which is best.

    Trials are compared on the validation split, in bits per character; only the best is measured on the test split.
    What was trained is kept: the same sweep again trains nothing, and one that was interrupted goes on.
    """
    from stages.sweep import pool, space, table
    from stages.sweep.search import prepare, search
    from stages.sweep.trial import Trial

    if dask is not None and jobs is not None:
        raise ConfigError("--jobs is for this machine, and --dask has a worker's thread for each trial: leave out one")
    candidates = [Trial(*found) for found in space.configurations(config.load(), vary, trials, seed)]
    opened = open_store(store)
    prepare(candidates, lambda chosen: runs.walk(chosen, opened))
    trainers = pool.cluster(dask) if dask else pool.processes(pool.at_a_time(jobs, len(candidates)))
    with trainers as workers, reporting() as reporter:
        ranked = search(candidates, keep, opened, workers, reporter("sweep"))
    way = runs.walk(ranked[0].config, opened)
    evaluated = way.to(graph.LAST)
    folder = table.publish(ranked, keep, evaluated, opened).folder
    report = runs.keep_report(opened, way.outcomes)
    if as_json:
        trained = sum(trial.ran for trial in ranked)
        found = {
            "trials": table.results(ranked),
            "trained": trained,
            "metrics": report.metrics,
            "artifact": str(folder),
        }
        print_json(found)
        return
    print(table.markdown(ranked))
    print(f"best: {table.settings(ranked[0])}")
    print(report.metrics["summary"])
    print(f"picture: {short(folder / 'curves.svg')}")
    if report.page:
        print(f"report: {short(report.page)}")
