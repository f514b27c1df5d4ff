"""The records of champions as files: what one holds, how it is read, and how one process at a time changes it.

``<store>/champion.json`` is the record of the name ``default``, ``<store>/champions/NAME.json`` that of any other. A
file is replaced as a whole under a lock, so that a reader needs none and two processes that promote at once lose
nothing. Where the store has a remote, the record is an object there, which is changed only as it was read, and the file
is what this machine last saw of it.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from data.errors import DeniedError, RemoteError, StoreError
from data.store import disk, kernel, reading
from data.store.files import kind, make, replace, settle
from data.store.naming import DEFAULT, check, fits
from data.store.shape import MOMENT, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from data.store.folder import Store
    from data.store.objects import Tag
    from data.store.remote import Remote

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
FILE, FOLDER = "champion.json", "champions"
_STAYS = "so the champion stays"
FORMAT: Final = 1
"""The newest that there is. What another version has added to it stays when this one writes the file again."""


class Withdrawal(BaseModel):
    """The end of a reign that was gone back from."""

    model_config = ConfigDict(frozen=True, extra="allow")

    when: Annotated[str, Field(pattern=MOMENT)]
    """UTC, ISO 8601."""
    why: str


class Reign(BaseModel):
    """One promotion, and what became of it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The key of its artifact of `train`."""
    since: Annotated[str, Field(pattern=MOMENT)]
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
    reigns: Annotated[list[Reign], FailFast()]
    rejections: Annotated[list[Rejection], FailFast()] = []
    """The last ``champions.KEPT_REJECTIONS``."""


def names(store: Store) -> list[str]:
    """The names under which something was ever promoted or compared, here or on the remote, the default first.

    Raises:
        StoreError: a folder that cannot be read.
    """
    try:
        found = {DEFAULT} if kind(store.root / FILE) else set()
        with suppress(FileNotFoundError):
            listed = map(PurePosixPath, kernel.listdir(store.root / FOLDER))
            found |= {path.stem for path in listed if path.suffix == ".json"}
    except OSError as error:
        raise StoreError(
            f"{store.root / FOLDER} does not say which models are champions ({error.strerror}): make it a folder that "
            "can be read"
        ) from None
    if store.remote is not None and store.remote.answers:
        with store.remote.spared():
            there = (PurePosixPath(one.name) for one in store.remote.objects.listed(FOLDER))
            found |= {path.stem for path in there if path.suffix == ".json"}
    return sorted(filter(fits, found), key=lambda name: (name != DEFAULT, name))


def read(store: Store, name: str) -> Record:
    """The record of a name; an empty one where nothing was ever promoted under it.

    With a remote it is the remote's, and the file here is what was last seen of it.

    Raises:
        ConfigError: what cannot be a name.
        FormatError: a newer version's.
        StoreError: a record that cannot be read.
    """
    if store.remote is not None and store.remote.answers:
        with store.remote.spared():
            return _shared(store, store.remote, name)[0]
    return here(store, name)


def _shared(store: Store, remote: Remote, name: str) -> tuple[Record, Tag | None]:
    """The record on the remote, noted here, too, and which version it is; that from here where there is none yet."""
    found = remote.objects.read(_object(name))
    if found is None:
        return here(store, name), None
    record = _parsed(found.content, f"{remote.address}/{_object(name)}")
    _note(store, name, found.content)
    return record, found.tag


def here(store: Store, name: str) -> Record:
    """The record as this machine has it, see `read`."""
    path = _path(store, name)
    try:
        return _parsed(reading.read(path), str(path))
    except FileNotFoundError:
        return Record(reigns=[])
    except OSError as error:
        if error.errno not in reading.NONE_THERE:
            raise StoreError(f"{path} cannot be read ({error.strerror}): make it readable") from None
        raise _unread(str(path), error.strerror or type(error).__name__) from None


def _parsed(content: bytes, place: str) -> Record:
    try:
        return parsed(Record, content)
    except ValidationError as error:
        reading.known(place, content, FORMAT)
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        why = f"{where}: {first['msg']}" if where else first["msg"]
    except (ValueError, RecursionError):
        why = "it holds what is no finite number, or no JSON of ours"
    raise _unread(place, why)


def _unread(place: str, why: str) -> StoreError:
    return StoreError(
        f"{place} does not say which model is the champion ({why}): restore it from a copy, or delete it to begin "
        "again with no champion"
    )


def _object(name: str) -> str:
    return f"{FOLDER}/{check(name)}.json"


def _path(store: Store, name: str) -> Path:
    check(name)
    return store.root / FILE if name == DEFAULT else store.root / FOLDER / f"{name}.json"


def publish(store: Store, name: str) -> bool:
    """Send the record of a name to the remote, where that has none; whether it was.

    Raises:
        RemoteError: the remote does not take it.
        StoreError: a record that cannot be read.
    """
    record = here(store, name)
    if store.remote is None or not record.reigns or store.remote.objects.read(_object(name)) is not None:
        return False
    return store.remote.objects.swap(_object(name), f"{record.model_dump_json(indent=1)}\n".encode(), None)


def change(store: Store, name: str, how: Callable[[Record], Result]) -> Result:
    """Change a record, one process at a time, and on a remote one machine at a time.

    Args:
        store: where it lies.
        name: of the champion.
        how: changes the record that it is given in place, or leaves it as it is. Where another machine was faster, it
            is asked again, given what that has made of it.

    Returns:
        What ``how`` gave of the record that was written.

    Raises:
        ConfigError: what cannot be a name.
        StoreError: a record that cannot be read or written; what ``how`` objects to.
    """

    def waiting() -> None:
        logger.info("another process is changing the champion; waiting for it")

    with store.lock("champion", "", waiting):
        while True:
            record, tag = _to_change(store, name)
            before = record.model_copy(deep=True)
            result = how(record)
            if record == before:
                # Whoever wrote it may have been killed before the disk had it.
                with disk.told(store.root), suppress(FileNotFoundError):
                    settle(_path(store, name).parent, store.root)
                return result
            content = f"{record.model_dump_json(indent=1)}\n".encode()
            if store.remote is None:
                _write(store, name, content)
                return result
            # What was sent may have come there, though no answer came back.
            with _meaning("and nobody knows whether the champion changed"):
                done = store.remote.objects.swap(_object(name), content, tag)
            if done:
                _note(store, name, content)
                return result
            logger.info("another machine has changed the champion meanwhile; deciding again")


def _to_change(store: Store, name: str) -> tuple[Record, Tag | None]:
    if store.remote is None:
        return here(store, name), None
    with staying():
        if not store.remote.writes:
            raise DeniedError(f"nothing is sent to the remote {store.remote.address}")
        return _shared(store, store.remote, name)


@contextmanager
def staying() -> Iterator[None]:
    """While a remote is asked for what a champion needs: where it fails, say what that means."""
    with _meaning(_STAYS):
        yield


@contextmanager
def _meaning(what: str) -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        what = _STAYS if isinstance(error, DeniedError) else what
        raise type(error)(f"{error}, {what}: run the same again where it does") from None


def _note(store: Store, name: str, content: bytes) -> None:
    """Note here what the remote has; who may only read here goes by the remote alone."""
    path = _path(store, name)
    with suppress(StoreError, OSError):
        if not kind(path) or reading.read(path) != content:
            _write(store, name, content)


def _write(store: Store, name: str, content: bytes) -> None:
    path = _path(store, name)
    try:
        make(store.root if name == DEFAULT else store.own(FOLDER))
        replace(path, content, store.root)
    except OSError as error:
        if _holds(path, content):
            raise StoreError(
                f"{path} is written, but the disk does not say that it keeps it ({error.strerror}): look after the "
                "disk, and whether `rnnlm champion` says the same after a restart"
            ) from error
        remedy = disk.ROOM if error.errno in disk.FULL else "make it writable"
        raise StoreError(f"{path} cannot be written ({error.strerror}), {_STAYS}: {remedy}") from error


def _holds(path: Path, content: bytes) -> bool:
    try:
        return reading.read(path) == content
    except OSError:
        return False
