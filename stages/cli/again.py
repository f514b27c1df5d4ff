"""A command that is asked again, and says what it said: nothing that it looked at then has changed since.

Of a run on which every stage was reused, it is remembered what was asked, in which surroundings, every file and folder
that the answer came from, and the answer. It is loaded before anything else, under names of the package `rnnlm`, and
must stay quick: no model of a configuration, no command line and no artifact is read here.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from data.store import cache

if TYPE_CHECKING:
    from collections.abc import Iterable

    from data.store.artifact import Artifact
    from data.store.folder import Store

MOST = 100_000
"""Files and folders that a remembered answer may come from, at most: it is to be found out in a moment."""
_PASSING = ("_", "OLDPWD", "SHLVL")
"""What a shell sets for itself; whatever else the environment says may matter to a library."""
_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/etc/ld.so.cache")
"""What comes or changes with a GPU, or with its driver."""


def answered() -> bool:
    """Whether this very question was answered here already, and has been now in the same words."""
    try:
        found = cache.get("asked", _question())
        if found is None or any(cache.stamp(path) != stamp for path, stamp in found["looked"]):
            return False
        for folder in found["used"]:
            with suppress(OSError):
                os.utime(folder)  # as `Store.touch` does
        for stream, text in ((sys.stderr, found["err"]), (sys.stdout, found["out"])):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
            stream.write(text)
            stream.flush()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # another version's, or nobody who reads it
        return False
    return True


def remember(out: str, err: str, store: Store, artifacts: Iterable[Artifact], others: Iterable[Path]) -> None:
    """Remember what a command has said, if all that it looked at was left alone for a while before it began.

    Not where there is a remote: it is told now and then what is in use.

    Args:
        out: all that it wrote to standard output.
        err: and to standard error.
        store: where the artifacts lie.
        artifacts: which it would reuse; what they were made from counts too.
        others: further files and folders: of the settings, the corpus, the report. Of more than `MOST` nothing is
            remembered.
    """
    from data import shown
    from data.store import fingerprint, loaded
    from data.store.artifact import MANIFEST

    if store.remote is not None:
        return
    used = {
        folder
        for artifact in artifacts
        for folder in (artifact.folder, *(store.folder(*parent) for parent in artifact.manifest.parents.items()))
        if folder.is_dir()  # what a text came from, packed in another way, may be gone
    }
    try:
        question = _question()
    except OSError:  # there is no such folder any more
        return
    further = [*islice(others, MOST + 1)]
    if len(further) > MOST:
        return
    packages = {path.parent for path in loaded.files()}
    libraries = [Path(folder) for folder in sys.path if Path(folder) != fingerprint.ROOT]
    looked = [
        *(path for folder in used for path in (folder / MANIFEST, *folder.iterdir())),
        *(path for folder in packages for path in (folder, *filter(Path.is_file, folder.iterdir()))),
        *(path.absolute() for path in (*further, *libraries)),
        fingerprint.ROOT / "pyproject.toml",
        *map(Path, _DEVICES),
    ]
    stamps = {str(path): cache.stamp(path) for path in looked}
    if all(cache.settled(stamp, loaded.BEGAN) for stamp in stamps.values()):
        answer = {
            "looked": [*stamps.items()],
            "used": [*map(str, used)],
            "out": shown.visible(out) if sys.stdout.isatty() else out,
            "err": err,
        }
        cache.put("asked", question, answer)


def _question() -> str:
    """What is asked, of which program, and in which surroundings."""
    surroundings = sorted((name, value) for name, value in os.environ.items() if name not in _PASSING)
    streams = [stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr)]
    asked = [sys.argv, os.getcwd(), surroundings, streams, sys.version, sys.prefix, sys.path, __file__]  # noqa: PTH109
    return cache.named(json.dumps(asked))
