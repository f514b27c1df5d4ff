"""Commands that look after a store."""

from __future__ import annotations

from typing import Annotated

import typer

from data.errors import StoreError
from data.store.folder import open_store
from stages.cli.options import StoreAt


def verify(store: StoreAt = None) -> None:
    """Compare every artifact with its manifest, byte by byte."""
    opened = open_store(store)
    damaged = 0
    artifacts = opened.artifacts()
    for artifact in artifacts:
        damage = opened.damage(artifact, again=True)
        damaged += damage is not None
        print(f"{artifact.manifest.stage:9} {artifact.manifest.key[:16]} {damage or 'sound'}")
    if damaged:
        raise StoreError(
            f"{damaged} of {len(artifacts)} artifacts in {opened.root} are damaged: "
            "the next run makes again what it needs, and `rnnlm gc` removes the rest"
        )


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: StoreAt = None,
) -> None:
    """Remove what nobody needs.

    That is leftovers of runs that were killed, damaged artifacts, and what has not been used for 30 days. The champions
    of all names and those before them stay, with all that they were made from.
    """
    from data.store import champions
    from data.store.collect import collect
    from stages.report import words

    opened = open_store(store)
    collected = collect(opened, pinned=champions.pinned(opened), dry_run=dry_run)
    for folder, why, size in collected:
        print(f"{folder}  {words.size(size)}  {why}")
    print(f"{'would free' if dry_run else 'freed'} {words.size(sum(size for _, _, size in collected))}")
