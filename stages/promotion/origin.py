"""Where a champion comes from: all that it was made from, and which corpus that was.

A corpus is a *source*, a text that goes on under one name while its content changes: a name of the catalogue, an
address without what may be secret in it, or a file's absolute path, on which symbolic links are left as they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from data.corpus.address import identity, is_address
from data.corpus.catalogue import catalogue
from data.errors import StoreError
from data.store import champions, mirror

if TYPE_CHECKING:
    from data.store.artifact import Artifact
    from data.store.folder import Store


def lineage(store: Store, key: str) -> list[Artifact]:
    """A champion and all that it was made from, as the manifests have it: the model first, the corpus last.

    Raises:
        StoreError: some of it is gone or damaged, or is not what was read.
    """
    found: list[Artifact] = []
    named = [(champions.STAGE, key)]
    for name, of in named:  # which grows as manifests are read
        artifact, damage = mirror.obtain(store, name, of)
        if artifact is None or damage:
            raise StoreError(
                f"nothing can be compared with the champion {key[:16]}, for its {name} artifact cannot be used "
                f"({damage}): `rnnlm rollback` goes back to the one before"
            )
        found.append(artifact)
        named += [parent for parent in artifact.manifest.parents.items() if parent not in named]
    there = {(f"{one.manifest.stage}/{file}", one.sha256(file)) for one in found for file in one.manifest.outputs}
    read = {entry for one in found for entry in one.manifest.components.get("inputs", {}).items()}
    if read - there:
        raise StoreError(
            f"nothing can be compared with the champion {key[:16]}, for no manifest leads to the "
            f"{min(read - there)[0]} that it was made from: `rnnlm rollback` goes back to the one before"
        )
    return found


def source(corpus: str) -> str:
    """The source that ``download.corpus`` means, here and now."""
    found = _source(corpus)
    return found if found is not None else os.path.normpath(Path(corpus).expanduser().absolute())


def recorded(made: list[Artifact]) -> str | None:
    """The source of what a `lineage` began with, as the manifest of its download has it.

    A path that was relative stays so, and begins with ``./``: nobody knows from where it led. None where no corpus is
    named.
    """
    corpora = (artifact.manifest.config["corpus"] for artifact in made if "corpus" in artifact.manifest.config)
    corpus = next(corpora, None)
    if not isinstance(corpus, str):
        return None
    found = _source(corpus)
    if found is not None:
        return found
    path = os.path.normpath(Path(corpus).expanduser())
    return path if path.startswith("/") else f"./{re.sub(r'^([.][.]/)+', '', path)}"


def same(ours: str, theirs: str) -> bool:
    """Whether a source of tonight is the one that was recorded; a relative path is the end of an absolute one."""
    return ours == theirs or (theirs.startswith("./") and ours.endswith(theirs[1:]))


def _source(corpus: str) -> str | None:
    """A name of the catalogue, or an address without secrets; None for a file's path."""
    if corpus in catalogue():
        return corpus
    return identity(corpus) if is_address(corpus) else None
