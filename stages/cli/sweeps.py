"""The commands that train many models side by side: `sweep` for the best of many settings, `compare` for sure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from data import cluster
from data.errors import ConfigError
from data.progress import reporting
from stages.cli import runs
from stages.cli.options import Configuration, Dask, Json, Place, as_text, configured
from stages.cli.output import print_json, short
from stages.pipeline import graph

if TYPE_CHECKING:
    from data.store.folder import Store
    from stages.sweep.trial import Trial


Jobs = Annotated[
    int | None,
    typer.Option(
        min=1, max=10_000, metavar="N", help="Trainings at a time, which share the cores. [default: one per core]"
    ),
]


@configured
def sweep(
    vary: Annotated[
        list[str],
        typer.Option(
            callback=as_text,
            metavar="STAGE.FIELD=V1,V2,…",
            help="Try these values of a field; with --trials also LOW..HIGH, drawn evenly, or evenly in the logarithm "
            "where HIGH is ten times a LOW above 0, or more; repeatable.",
        ),
    ],
    *,
    trials: Annotated[
        int | None, typer.Option(min=1, max=100_000, metavar="N", help="Draw N trials at random. [default: the grid]")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, metavar="S", help="The same seed draws the same trials.")
    ] = 0,
    jobs: Jobs = None,
    keep: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="The share of the trials that goes on, rung by rung, until two are left; 1 stops none early.",
        ),
    ] = 0.5,
    dask: Dask = None,
    config: Configuration,
    place: Place,
    as_json: Json = False,
) -> None:
    """Try many settings side by side, stop early what does badly, and say which is best.

    Trials are compared on the whole validation split, in bits per character; only the best is measured on the test
    split. One that makes another text of it than the others is refused.
    What was trained is kept: the same sweep again trains nothing, and one that was interrupted goes on.
    """
    from stages.sweep import space, table
    from stages.sweep.trial import Trial

    candidates = [Trial(*found) for found in space.configurations(config.load(), vary, trials, seed)]
    opened = place.open()
    ranked = _trained("sweep", candidates, keep, jobs, dask, opened)
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
    print(table.markdown(table.rows(ranked)))
    print(f"best: {space.settings(ranked[0].values)}")
    print(report.metrics["summary"])
    print(f"picture: {short(folder / 'curves.svg')}")
    if report.page:
        print(f"report: {short(report.page)}")


@configured
def compare(
    vary: Annotated[
        list[str],
        typer.Option(
            callback=as_text,
            metavar="STAGE.FIELD=V1,V2,…",
            help="Compare these values of a field, each with the first; repeatable.",
        ),
    ],
    *,
    seeds: Annotated[
        int, typer.Option(min=2, max=100_000, metavar="N", help="Train each so many times, train.seed counting up.")
    ] = 5,
    jobs: Jobs = None,
    dask: Dask = None,
    config: Configuration,
    place: Place,
    as_json: Json = False,
) -> None:
    """Say whether one setting is better than another, or only luckier: train each with several seeds.

    They are compared on the whole validation split, in bits per character; the test split is not looked at. What was
    trained is kept, as by `rnnlm sweep`.
    """
    from stages.sweep import compare, table

    candidates = compare.trials(config.load(), vary, seeds)
    ranked = _trained("compare", candidates, 1, jobs, dask, place.open())
    recipes = compare.recipes(candidates)
    if as_json:
        trained = sum(trial.ran for trial in ranked)
        print_json({"recipes": compare.results(recipes), "confidence": compare.CONFIDENCE, "trained": trained})
        return
    print(table.markdown(compare.rows(recipes)))
    for sentence in compare.sentences(recipes):
        print(sentence)


def _trained(
    name: str, candidates: list[Trial], keep: float, jobs: int | None, dask: str | None, store: Store
) -> list[Trial]:
    """The trials after their search, the best first; progress goes by this name."""
    from stages.sweep import pool
    from stages.sweep.search import prepare, search

    if dask is not None and jobs is not None:
        raise ConfigError("--jobs is for this machine, and --dask has a worker's thread for each trial: leave out one")
    if dask is not None:
        cluster.check(dask)
    prepare(candidates, lambda chosen: runs.walk(chosen, store, dask=dask))
    trainers = pool.cluster(dask) if dask is not None else pool.processes(pool.at_a_time(jobs, len(candidates)))
    with trainers as workers, reporting() as reporter:
        return search(candidates, keep, store, workers, reporter(name))
