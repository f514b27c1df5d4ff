"""Commands about nights: one here and now, as cron would run it, and what the nights so far decided."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from data import cluster
from data.moment import minute
from data.shown import line
from data.store.naming import DEFAULT
from stages.cli import runs
from stages.cli.options import Configuration, Dask, Json, Name, Place, as_corpus, configured
from stages.cli.output import print_json, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data.store.nights import NightRecord

BARS = "▁▂▃▄▅▆▇█"


@configured
def night(
    *,
    name: Name = DEFAULT,
    config: Configuration,
    reference: Annotated[
        str | None,
        typer.Option(
            callback=as_corpus,
            metavar="NAME|URL|PATH",
            help="A text, fetched once, on which no champion may get worse.",
        ),
    ] = None,
    other_corpus: Annotated[
        bool, typer.Option("--other-corpus", help="The corpus may be another one than the champion's.")
    ] = False,
    dask: Dask = None,
    place: Place,
    as_json: Json = False,
) -> None:
    """Fetch the corpus again, train, and promote only what is better.

    What the flow `retrain` does every night, for those who have cron. The exit code is 0 whatever is decided, and 2
    where the text is refused. A second night of the same name while one runs decides nothing.
    """
    from data.store import nights
    from stages.promotion.night import Night

    opened = place.open()
    if dask is not None:
        cluster.check(dask)
    one = Night(
        opened, config.load(), when=datetime.now(UTC), name=name, reference=reference, other_corpus=other_corpus
    )
    ended = one.run(partial(runs.walk, store=opened, dask=dask), report=partial(runs.keep_report, opened))
    if as_json:
        print_json(nights.as_json(opened, ended))
        return
    print(f"{ended.decision}: {line(ended.reason)}")
    if ended.candidate and ended.candidate.page:
        print(f"report: {short(opened.root / ended.candidate.page)}")


@configured
def history(*, name: Name = DEFAULT, place: Place, as_json: Json = False) -> None:
    """Tell what the nights of two years decided, the newest last.

    Bits are those per character of that night's test text: of the candidate, and of the champion that it was compared
    with. At the end, how those of the champion went.
    """
    from data.store import nights

    opened = place.open()
    found = nights.read(opened, name)
    if as_json:
        print_json({"name": name, "nights": [one.model_dump(mode="json") for one in found]})
        return
    if not found:
        print(f"there was no night in {opened.root} yet")
        return
    print(f"{'night':20} {'decision':9} {'bits':>6} {'champion':>8} {'gain':>7}  {'report':29} reason")
    for one in found:
        print(_line(one))
    bits = [one.bits for one in found if one.bits is not None]
    if len(bits) > 1:
        print(f"the champion's bits per character: {_picture(bits)} {bits[0]:.3f} → {bits[-1]:.3f}")
    if (page := opened.root / "index.html").is_file():
        print(f"the same as a page: {short(page)}")


def _line(one: NightRecord) -> str:
    today = next((test for test in one.tests if test.get("text") == "today"), {})
    ours, theirs, gain = (today.get(figure) for figure in ("bits", "bits_champion", "gain"))
    figures = f"{_figure(ours):>6} {_figure(theirs):>8} {_figure(gain, '+'):>7}"
    page = one.candidate.page or line(one.candidate.key[:16]) if one.candidate else ""
    return f"{minute(one.when):20} {one.decision:9} {figures}  {page:29} {line(one.reason)}"


def _figure(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.3f}"


def _picture(values: Sequence[float], width: int = 60) -> str:
    """A bar for each value, the least lowest; of many, the last."""
    shown = values[-width:]
    least, most = min(shown), max(shown)
    scale = (len(BARS) - 1) / (most - least) if most > least else 0
    return "".join(BARS[round((value - least) * scale)] for value in shown)
