"""Files of addresses, one in a line; and how to get what this program does not fetch itself."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from data.corpus.address import check, is_address, written
from data.errors import CorpusError

SUFFIX = ".urls"
LARGEST = 1 << 20
"""Bytes of such a file, at most."""

_COMMANDS = {
    "gs": "gcloud storage cp --recursive {address} .",
    "ftp": "curl --remote-name {address}",
    "sftp": "sftp {address}",
    "git": "git clone {address}",
    "ssh": "git clone {address}",
}
"""Scheme → the command that brings what it names into the folder where it is typed."""


def read(name: str, path: Path) -> list[str]:
    """The addresses in a file; what follows a ``#`` at the start of a line, or behind a space, is a comment.

    Raises:
        CorpusError: a line that is no http(s) address, or no line that is one.
        OSError: a file that cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise CorpusError(f"{name!r} has more than the {LARGEST:,} bytes that a file of addresses may have; cut it up")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise CorpusError(f"{name!r} is not UTF-8 text, as a file of addresses has to be; convert it") from None
    found = []
    for number, line in enumerate(lines, 1):
        address = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if not address:
            continue
        if not (is_address(address) and address.partition("://")[0].lower() in ("http", "https")):
            raise CorpusError(
                f"line {number:,} of {name!r} is no http(s) address: {written(address)[:80]!r}; correct it"
            )
        try:
            check(address)
        except CorpusError as error:
            raise CorpusError(f"line {number:,} of {name!r}: {error}") from None
        found.append(address)
    if not found:
        raise CorpusError(f"{name!r} holds no address; write one http(s) address in each line")
    return found


def fetching(address: str) -> str:
    """What somebody can do to get what has an address of another scheme than http, to end a sentence with."""
    scheme, _, rest = written(address).partition("://")
    if scheme.lower() == "hf":
        kind, _, place = rest.partition("/")
        if kind not in ("datasets", "spaces"):
            kind, place = "models", rest
        owner, _, rest = place.partition("/")
        repository = f"{owner}/{re.split('[/@]', rest)[0]}" if rest else owner
        folder = repository.rpartition("/")[2]
        of = f" --repo-type {kind.removesuffix('s')}" if kind != "models" else ""
        return (
            f"get it by `hf download {shlex.quote(repository)}{of} --local-dir {shlex.quote(folder)}` and give "
            f"--corpus {shlex.quote(folder)}"
        )
    if command := _COMMANDS.get(scheme.lower()):
        return f"get it by `{command.format(address=shlex.quote(written(address)))}` and give its path"
    return "get the file yourself and give its path"
