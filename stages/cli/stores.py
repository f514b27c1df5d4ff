"""Commands that look after a store."""

from __future__ import annotations

import json
import sys
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data.errors import FormatError, StoreError
from data.moment import minute
from data.shown import line
from data.store.collect import KEPT_DAYS, collect
from data.store.folder import open_store
from stages.cli.options import Json, Place, StoreAt, configured
from stages.cli.output import print_json

if TYPE_CHECKING:
    from data.store.artifact import Artifact
    from data.store.folder import Store


@configured
def runs(place: Place, as_json: Json = False) -> None:
    """List the trainings that a store holds, the last one first.

    Of each its model, when it was trained, what it takes with and without checkpoints, the perplexity on the validation
    split, of which name it is the champion, and the settings that are not as in `rnnlm run` without options; where
    `train.max_tokens` ended it, how many epochs that was.
    """
    from stages.pipeline.trainings import trainings
    from stages.report import words

    opened = place.open()
    found = trainings(opened)
    if as_json:
        print_json({"runs": [one.json() for one in found]})
        return
    if not found:
        print(f"there is no trained model in {opened.root}")
        return
    print(
        f"{'model':16}  {'trained':20}  {'size':>8}  {'checkpoints':>11}  {'perplexity':>10}  {'champion':9} settings"
    )
    for one in found:
        manifest = one.artifact.manifest
        perplexity = words.figure(one.perplexity) if one.perplexity else "–"
        sizes = f"{words.size(one.bytes):>8}  {words.size(one.checkpoints):>11}"
        settings = (
            " ".join(f"{line(name)}={_shown(value)}" for name, value in one.settings.items()) or "as without options"
        )
        if one.settings.get("train.max_tokens") and one.passes:
            settings += f" ({words.passes({'passes': one.passes})} epochs)"
        about = f"{perplexity:>10}  {', '.join(one.champion):9} {settings}"
        print(f"{manifest.key[:16]}  {minute(manifest.created)}  {sizes}  {about}")


def _shown(value: object) -> str:
    """A setting's value as `--set` takes it, in quotes where a shell would need them."""
    text = line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if text and " " not in text else f'"{text}"'


@configured
def verify(place: Place) -> None:
    """Compare every artifact with its manifest, byte by byte, and see that its files mean what they should."""
    from stages.pipeline.decide import fault

    opened = place.open()
    damaged = 0
    artifacts = sorted(opened.published(), key=_created, reverse=True)
    for folder, artifact in artifacts:
        damage: str | None = "its manifest cannot be read"
        if artifact:
            try:
                damage = opened.damage(artifact, again=True) or fault(artifact)
            except FormatError as newer:  # which is nothing that a run makes again
                print(f"{line(folder.parent.name):9} {folder.name} {newer}")
                continue
        damaged += bool(damage)
        print(f"{line(folder.parent.name):9} {folder.name} {line(damage or 'sound')}")
    if damaged:
        raise StoreError(
            f"{damaged} of {len(artifacts)} artifacts in {opened.root} are damaged: "
            "the next run makes again what it needs, and `rnnlm gc` removes the rest"
        )


def _created(entry: tuple[Path, Artifact | None]) -> str:
    return entry[1].manifest.created if entry[1] else ""


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    days: Annotated[float, typer.Option(min=0, metavar="N", help="How long what is not used stays.")] = KEPT_DAYS,
    keep: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="How many of the models that were trained last stay, however old."),
    ] = 0,
    checkpoints: Annotated[
        bool,
        typer.Option(
            "--checkpoints", help="Those of trainings that have ended, too: more epochs begin anew without them."
        ),
    ] = False,
    max_gb: Annotated[
        float | None,
        typer.Option(min=0, metavar="N", help="What the store may have; above it what was used longest ago goes, too."),
    ] = None,
    store: StoreAt = None,
    remote: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Of what machines share at this address instead; nothing of the last day goes."
        ),
    ] = None,
) -> None:
    """Remove what nobody needs.

    That is leftovers of runs that were killed, damaged artifacts, checkpoints of trainings that ended a week ago, and
    what has not been used for 30 days. The champions of all names and the last ten before each stay, with all that they
    were made from.
    """
    from stages.pipeline import begun
    from stages.report import words

    opened = open_store(store, remote)
    if remote:
        _prune(opened, days, dry_run=dry_run)
        return
    needless = partial(
        collect,
        opened,
        finished=begun.ended(opened),
        newer=begun.newer(opened),
        days=days,
        keep=keep,
        limit=inf if max_gb is None else max_gb * 1e9,
        elsewhere=opened.remote.places() if opened.remote and max_gb is not None else None,
    )
    collected = needless(dry_run=dry_run, checkpoints=checkpoints)
    for path, why, size, fault in collected:
        print(
            f"{line(str(path))}  {words.size(size)}  {line(why)}{f', but it is there still: {fault}' if fault else ''}"
        )
    freed = sum(removal.bytes for removal in collected)
    print(f"{'would free' if dry_run else 'freed'} {words.size(freed)}")
    more = sum(removal.bytes for removal in needless(dry_run=True, checkpoints=True)) - (freed if dry_run else 0)
    if more > 0:
        print(f"`rnnlm gc --checkpoints` frees {words.size(more)} more, of finished trainings", file=sys.stderr)


def _prune(store: Store, days: float, *, dry_run: bool) -> None:
    from data.store.prune import prune
    from stages.report import words

    assert store.remote is not None
    pruned = prune(store, store.remote, days=days, dry_run=dry_run)
    for place, why, size in pruned:
        print(f"{store.remote.address}/{line(place)}  {words.size(size)}  {why}")
    print(f"{'would free' if dry_run else 'freed'} {words.size(sum(one.bytes for one in pruned))}")
