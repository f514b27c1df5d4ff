"""The records of champions as files: what one holds, how it is read, and how one process at a time changes it.

``<store>/champion.json`` is the record of the name ``default``, ``<store>/champions/NAME.json`` that of any other. A
file is replaced as a whole under a lock, so that a reader needs none and two processes that promote at once lose
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import StoreError
from data.store import disk, reading
from data.store.files import replace
from data.store.fingerprint import canonical
from data.store.naming import DEFAULT, check, fits

if TYPE_CHECKING:
    from pathlib import Path

    from data.store.folder import Store

logger = logging.getLogger(__name__)

FILE, FOLDER = "champion.json", "champions"
FORMAT: Final = 1
"""The newest that there is. What another version has added to it stays when this one writes the file again."""


class Withdrawal(BaseModel):
    """The end of a reign that was gone back from."""

    model_config = ConfigDict(frozen=True, extra="allow")

    when: str
    """UTC, ISO 8601."""
    why: str


class Reign(BaseModel):
    """One promotion, and what became of it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The key of its artifact of `train`."""
    since: str
    """UTC, ISO 8601."""
    reason: str
    figures: dict[str, Any]
    """What spoke for it; anything that JSON holds, every number finite."""
    source: str | None = None
    """Which corpus it was made from: a name of the catalogue, an address without secrets, or a file's path; None in
    reigns that were written before this was."""
    withdrawn: Withdrawal | None = None
    """None for the champion and for those that a later promotion took the place of."""


class Rejection(BaseModel):
    """A model that was compared with a champion, and was not better."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: str
    over: str
    """The champion's key."""
    when: str
    reason: str


class Record(BaseModel):
    """The content of the file."""

    model_config = ConfigDict(extra="allow")

    format: Literal[1] = FORMAT
    reigns: list[Reign]
    rejections: list[Rejection] = []
    """The last ``champions.KEPT_REJECTIONS``."""


def names(store: Store) -> list[str]:
    """The names under which something was ever promoted or compared, the default first.

    Raises:
        StoreError: a folder that cannot be read.
    """
    default = [DEFAULT] if (store.root / FILE).exists() else []
    try:
        found = sorted(path.stem for path in (store.root / FOLDER).iterdir() if path.suffix == ".json")
    except FileNotFoundError:
        return default
    except OSError as error:
        raise StoreError(
            f"{store.root / FOLDER} does not say which models are champions ({error.strerror}): make it a folder that "
            "can be read"
        ) from None
    return default + [name for name in found if fits(name) and name != DEFAULT]


def read(store: Store, name: str) -> Record:
    """The record of a name; an empty one where nothing was ever promoted under it.

    Raises:
        ConfigError: what cannot be a name.
        FormatError: a newer version's.
        StoreError: a file that cannot be read.
    """
    path, written = _path(store, name), b""
    try:
        written = reading.read(path)
        record = Record.model_validate_json(written)
        canonical(record.model_dump())
        return record
    except FileNotFoundError:
        return Record(reigns=[])
    except ValidationError as error:
        reading.known(path, written, FORMAT)
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        why = f"{where}: {first['msg']}" if where else first["msg"]
    except (ValueError, RecursionError):
        why = "it holds what is no finite number, or no JSON of ours"
    except OSError as error:
        why = error.strerror or type(error).__name__
    raise StoreError(
        f"{path} does not say which model is the champion ({why}): restore it from a copy, or delete it to begin again "
        "with no champion"
    )


def _path(store: Store, name: str) -> Path:
    check(name)
    return store.root / FILE if name == DEFAULT else store.root / FOLDER / f"{name}.json"


@contextmanager
def changing(store: Store, name: str) -> Iterator[Record]:
    """The record, to be changed in place by one process at a time, and written when the block ends as it should.

    Raises:
        ConfigError: what cannot be a name.
        StoreError: a file that cannot be read or written.
    """

    def waiting() -> None:
        logger.info("another process is changing the champion; waiting for it")

    with store.lock("champion", "", waiting):
        record = read(store, name)
        before = record.model_copy(deep=True)
        yield record
        if record == before:
            return
        path = _path(store, name)
        try:
            if name != DEFAULT:
                store.own(FOLDER).mkdir(exist_ok=True)
            replace(path, f"{record.model_dump_json(indent=1)}\n".encode())
        except OSError as error:
            remedy = disk.ROOM if error.errno in disk.FULL else "make it writable"
            raise StoreError(f"{path} cannot be written ({error.strerror}), so the champion stays: {remedy}") from error
