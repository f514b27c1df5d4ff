"""The champion of a store: which trained model is the one to use, and those that were it before.

``<store>/champion.json`` holds every reign, the last one newest. The champion is the newest reign that was not
withdrawn: promoting adds a reign, going back withdraws one, and nothing is ever taken out. The file is replaced as a
whole under a lock, so that a reader needs none and two processes that promote at once lose nothing.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import StoreError
from data.moment import now
from data.store.files import replace

if TYPE_CHECKING:
    from pathlib import Path

    from data.store.folder import Store

logger = logging.getLogger(__name__)

FILE = "champion.json"
KEPT_REJECTIONS = 100
STAGE = "train"
"""The stage whose artifacts can be champions."""


class Withdrawal(BaseModel):
    """The end of a reign that was gone back from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: str
    """UTC, ISO 8601."""
    why: str


class Reign(BaseModel):
    """One promotion, and what became of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The key of its artifact of `train`."""
    since: str
    """UTC, ISO 8601."""
    reason: str
    figures: dict[str, Any]
    """What spoke for it; anything that JSON holds, every number finite."""
    withdrawn: Withdrawal | None = None
    """None for the champion and for those that a later promotion took the place of."""


class Rejection(BaseModel):
    """A model that was compared with a champion, and was not better."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    over: str
    """The champion's key."""
    when: str
    reason: str


class _Record(BaseModel):
    """The content of the file."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    reigns: list[Reign] = []
    rejections: list[Rejection] = []
    """The last ``KEPT_REJECTIONS``."""


def current(store: Store) -> Reign | None:
    """The champion's reign; None where no model was ever promoted, or all of them were withdrawn.

    Raises:
        StoreError: a ``champion.json`` that cannot be read.
    """
    return next((reign for reign in reversed(history(store)) if not reign.withdrawn), None)


def history(store: Store) -> list[Reign]:
    """Every reign there ever was, the newest last.

    Raises:
        StoreError: a ``champion.json`` that cannot be read.
    """
    return _read(store).reigns


def withdrawn(store: Store, key: str) -> Withdrawal | None:
    """Why a model was gone back from, unless it was promoted again since."""
    last = next((reign for reign in reversed(history(store)) if reign.model == key), None)
    return last.withdrawn if last else None


def rejected(store: Store, key: str, over: str) -> Rejection | None:
    """What came of comparing a model with this champion, if they were compared and it was not better."""
    found = (rejection for rejection in _read(store).rejections if (rejection.model, rejection.over) == (key, over))
    return next(found, None)


def reject(store: Store, key: str, over: str, reason: str) -> None:
    """Remember that a model was compared with this champion and was not better, so that nobody asks again."""
    with _changing(store) as record:
        record.rejections = [
            *record.rejections[-KEPT_REJECTIONS + 1 :],
            Rejection(model=key, over=over, when=now(), reason=reason),
        ]


def _read(store: Store) -> _Record:
    path = _path(store)
    try:
        return _Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return _Record()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        why = f"{where}: {first['msg']}" if where else first["msg"]
    except OSError as error:
        why = error.strerror or type(error).__name__
    raise StoreError(
        f"{path} does not say which model is the champion ({why}): restore it from a copy, or delete it to begin again "
        "with no champion"
    )


def promote(store: Store, key: str, reason: str, figures: Mapping[str, Any], *, over: str | None = None) -> Reign:
    """Make a model the champion; its predecessors stay in the history. The champion itself just stays it.

    Args:
        store: where the model and the pointer lie.
        key: of a sound artifact of `train`.
        reason: why, in one sentence for people.
        figures: what spoke for it, as JSON can hold it.
        over: the champion that it was compared with, where it was; it has to be the champion still.

    Raises:
        StoreError: no such model or a damaged one, figures that are not finite, or a pointer that cannot be read or
            written.
    """
    try:
        kept = json.loads(json.dumps(dict(figures), allow_nan=False))
    except ValueError:
        raise StoreError(
            f"the model {key[:16]} is not promoted, for its figures are not all finite: train again, with a lower "
            "train.learning_rate for one"
        ) from None
    if fault := _fault(store, key):
        raise StoreError(f"the model {key[:16]} is not promoted, for its artifact {fault}: train again")
    with _changing(store) as record:
        champion = next((reign for reign in reversed(record.reigns) if not reign.withdrawn), None)
        if champion is not None and champion.model == key:
            return champion
        if over is not None and (champion is None or champion.model != over):
            raise StoreError(
                f"the model {key[:16]} is not promoted, for it was compared with {over[:16]}, which is no longer the "
                "champion: run the same again"
            )
        reign = Reign(model=key, since=now(), reason=reason, figures=kept)
        record.reigns.append(reign)
    return reign


def rollback(store: Store, reason: str) -> Reign:
    """Withdraw the champion and give back its predecessor's reign, which is the champion's now.

    Predecessors whose artifact is gone or damaged are withdrawn too, with a warning. Where no sound one is left,
    nothing is withdrawn.

    Raises:
        StoreError: nothing to go back to, or a pointer that cannot be read or written.
    """
    with _changing(store) as record:
        reigns = record.reigns
        standing = [number for number, reign in enumerate(reigns) if not reign.withdrawn]
        if not standing:
            raise StoreError(f"the store {store.root} has no champion to go back from: `rnnlm run` trains a model")
        champion, *before = reversed(standing)
        withdrawals, predecessor = {champion: reason}, None
        for number in before:
            fault = _fault(store, reigns[number].model)
            if fault is None:
                predecessor = reigns[number]
                break
            withdrawals[number] = f"its artifact {fault}"
        if predecessor is None:
            why = "the artifacts of all before it are gone or damaged" if before else "none was before it"
            raise StoreError(
                f"there is no champion to go back to from {reigns[champion].model[:16]}, for {why}: it stays the "
                "champion until another model is promoted"
            )
        moment = now()
        for number, why in withdrawals.items():
            if number != champion:
                logger.warning(
                    "%s, champion since %s, is skipped: %s", reigns[number].model[:16], reigns[number].since, why
                )
            reigns[number] = reigns[number].model_copy(update={"withdrawn": Withdrawal(when=moment, why=why)})
    return predecessor


def pinned(store: Store) -> set[str]:
    """Keys of the models that the store must keep: the champion, and all that one could go back to.

    Raises:
        StoreError: a ``champion.json`` that cannot be read, so that nobody knows what to keep.
    """
    return {reign.model for reign in history(store) if not reign.withdrawn}


def _path(store: Store) -> Path:
    return store.root / FILE


def _fault(store: Store, key: str) -> str | None:
    """What keeps a model from being the champion, or None."""
    artifact = store.find(STAGE, key)
    if artifact is None:
        return "is gone"
    damage = store.damage(artifact, again=True)
    return f"is damaged ({damage})" if damage else None


@contextmanager
def _changing(store: Store) -> Iterator[_Record]:
    """The record, to be changed in place by one process at a time, and written when the block ends as it should."""

    def waiting() -> None:
        logger.info("another process is changing the champion; waiting for it")

    with store.lock("champion", "", waiting):
        record = _read(store)
        before = record.model_copy(deep=True)
        yield record
        if record == before:
            return
        path = _path(store)
        try:
            replace(path, f"{record.model_dump_json(indent=1)}\n".encode())
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            remedy = "free some space, `rnnlm gc` for one" if full else "make it writable"
            raise StoreError(f"{path} cannot be written ({error.strerror}), so the champion stays: {remedy}") from error
