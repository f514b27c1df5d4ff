"""Which folder is the store: the one that is named, else the environment's, else the default."""

from __future__ import annotations

import os
from pathlib import Path

from data.corpus.address import written
from data.errors import ConfigError, StoreError
from data.store import fingerprint


def folder(name: str | None) -> Path:
    """The folder with this name, else in ``$RNNLM_STORE``, else ``data/artifacts`` of a clone. The installed program
    keeps its store in the user's data folder, for what lies among installed packages goes with them.

    Raises:
        ConfigError: an address in a folder's place, or what cannot be a folder.
        StoreError: the name of a file.
    """
    place = name or os.environ.get("RNNLM_STORE") or str(_default())
    if "://" in place:
        raise ConfigError(
            f"the store {written(place)} is an address: a store is a folder, and --remote names what machines share"
        )
    try:
        root = Path(place).expanduser().absolute()
        taken = root.exists() and not root.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"the store {place[:80]} cannot be a folder ({error}): name another one") from None
    if taken:
        raise StoreError(f"the store {root} is a file: name a folder with --store or RNNLM_STORE")
    return root


def _default() -> Path:
    """The store of somebody who names none."""
    if fingerprint.in_clone():
        return fingerprint.ROOT / "data" / "artifacts"

    import platformdirs

    return platformdirs.user_data_path("rnnlm")
