"""Commands that show and change which model of a store is the one to use."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data.errors import StoreError
from data.moment import minute
from data.shown import line
from data.store.naming import DEFAULT
from stages.cli.options import Json, Name, Place, Reason, configured
from stages.cli.output import print_json

if TYPE_CHECKING:
    from data.store.folder import Store


@configured
def champion(
    *,
    name: Name = DEFAULT,
    every: Annotated[bool, typer.Option("--all", help="Those of all names.")] = False,
    place: Place,
    as_json: Json = False,
) -> None:
    """Show the champion and those before it.

    The champion is the model that a night promoted last, and that `rnnlm sample` uses.
    """
    from data.store import reigns

    opened = place.open()
    chosen = reigns.names(opened) if every else [name]
    if as_json:
        found = {one: _json(opened, one) for one in chosen}
        print_json(found if every else found[chosen[0]])
        return
    if every and not chosen:
        print(f"no model has been promoted in {opened.root}")
    for one in chosen:
        if every:
            print(f"{one}:")
        _show(opened, one)


def _json(store: Store, name: str) -> dict[str, Any]:
    from data.store import champions

    now = champions.current(store, name)
    history = [reign.model_dump(mode="json") for reign in champions.history(store, name)]
    return {"champion": now.model_dump(mode="json") if now else None, "history": history}


def _show(store: Store, name: str) -> None:
    from data.store import champions

    reigns = champions.history(store, name)
    now = champions.current(store, name)
    if now is None:
        print(f"no model has been promoted in {store.root}{champions.called(name)}")
    for reign in reversed(reigns):
        mark = "champion" if reign is now or reign == now else "withdrawn" if reign.withdrawn else "before"
        print(f"{mark:9} {reign.model[:16]}  since {minute(reign.since)}  {line(reign.reason)}")
        if reign.withdrawn:
            print(f"{'':27} withdrawn {minute(reign.withdrawn.when)}: {line(reign.withdrawn.why)}")


@configured
def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's folder, or the first digits of its key.")],
    *,
    reason: Reason = "promoted by hand",
    name: Name = DEFAULT,
    place: Place,
) -> None:
    """Make a model the champion by hand, without comparing it."""
    from data.store import champions
    from stages.promotion import origin

    opened = place.open()
    begins = Path(model).name
    models = opened.artifacts(champions.STAGE)
    keys = [artifact.manifest.key for artifact in models if artifact.manifest.key.startswith(begins)]
    if len(keys) != 1 or not begins:
        raise StoreError(
            f"{len(keys) or 'no'} models in {opened.root} begin with {begins!r}: name one of `rnnlm champion`"
        )
    source = None
    with suppress(StoreError):  # what is wrong with the model, `champions` finds out
        source = origin.recorded(origin.lineage(opened, keys[0]))
    champions.promote(opened, keys[0], reason, {}, source=source, name=name)
    print(f"{keys[0][:16]} is the champion{champions.called(name)}")


@configured
def rollback(*, reason: Reason = "asked for by hand", name: Name = DEFAULT, place: Place) -> None:
    """Go back to the champion before the present one."""
    from data.store import champions

    reign = champions.rollback(place.open(), reason, name=name)
    print(f"{reign.model[:16]} is the champion again{champions.called(name)}")
