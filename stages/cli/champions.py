"""Commands that show and change which model of a store is the one to use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data.errors import StoreError
from data.moment import minute
from data.store.folder import open_store
from stages.cli.options import Json, Reason, StoreAt
from stages.cli.output import print_json


def champion(store: StoreAt = None, as_json: Json = False) -> None:
    """Show the champion and those before it.

    The champion is the model that the flow `retrain` promoted last, and that `rnnlm sample` uses.
    """
    from data.store import champions

    opened = open_store(store)
    reigns = champions.history(opened)
    now = champions.current(opened)
    if as_json:
        current = now.model_dump(mode="json") if now else None
        print_json({"champion": current, "history": [reign.model_dump(mode="json") for reign in reigns]})
        return
    if now is None:
        print(f"no model has been promoted in {opened.root}")
    for reign in reversed(reigns):
        mark = "champion" if reign is now or reign == now else "withdrawn" if reign.withdrawn else "before"
        print(f"{mark:9} {reign.model[:16]}  since {minute(reign.since)}  {reign.reason}")
        if reign.withdrawn:
            print(f"{'':27} withdrawn {minute(reign.withdrawn.when)}: {reign.withdrawn.why}")


def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's folder, or the first digits of its key.")],
    reason: Reason = "promoted by hand",
    store: StoreAt = None,
) -> None:
    """Make a model the champion by hand, without comparing it."""
    from data.store import champions

    opened = open_store(store)
    name = Path(model).name
    models = opened.artifacts(champions.STAGE)
    keys = [artifact.manifest.key for artifact in models if artifact.manifest.key.startswith(name)]
    if len(keys) != 1:
        raise StoreError(
            f"{len(keys) or 'no'} models in {opened.root} begin with {name!r}: name one of `rnnlm champion`"
        )
    champions.promote(opened, keys[0], reason, {})
    print(f"{keys[0][:16]} is the champion")


def rollback(reason: Reason = "asked for by hand", store: StoreAt = None) -> None:
    """Go back to the champion before the present one."""
    from data.store import champions

    reign = champions.rollback(open_store(store), reason)
    print(f"{reign.model[:16]} is the champion again")
