"""The nights of a store: what each one decided and by which figures, two years of them, whatever is collected.

``<store>/nights/NAME.jsonl`` holds a line for each night of the champion of that name, the last one newest. The file is
replaced as a whole under a lock, so that a reader needs none. A line has no format: what a newer version has added to
one is passed over, a line that says nothing to this one is left out, and both stay as they are.
"""

from __future__ import annotations

import io
import logging
import math
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from data.errors import StoreError
from data.store import champions, naming, reading
from data.store.files import make, replace
from data.store.shape import MOMENT, fits, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from data.store.folder import Store

logger = logging.getLogger(__name__)

Decision = Literal["promoted", "rejected", "unchanged", "refused", "failed"]
FOLDER = "nights"
KEPT_DAYS = 731
_LARGEST = 1 << 26
"""Bytes of a file: two years of a night every hour are half of that."""
_NAMED = 5
"""Lines that are no nights' and are named."""


class Model(BaseModel):
    """A model that a night was about."""

    model_config = ConfigDict(frozen=True)

    key: str
    """Of its artifact of `train`."""
    since: Annotated[str, Field(pattern=MOMENT)] | None = None
    """Since when it was the champion, UTC, ISO 8601; None for a candidate."""
    page: Annotated[str, Field(pattern=r"^reports/[A-Za-z0-9_-]+\.html$")] | None = None
    """Its report, below the store's folder: ``reports/<key>.html``; None where there is none."""


class Test(BaseModel):
    """What came of one text, as far as it is told again."""

    text: str
    bits: float | None = None
    bits_champion: float | None = None
    gain: float | None = None
    lower: float | None = None
    upper: float | None = None


class NightRecord(BaseModel):
    """What became of one night; every number is finite or None."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")

    when: Annotated[str, Field(pattern=MOMENT)]
    """At which moment it was over, UTC, ISO 8601."""
    name: str
    """Of the champion that it was about."""
    decision: Decision
    """`unchanged`: nothing was there to decide; `refused`: the corpus was unfit; `failed`: something else ended it."""
    reason: str
    """One sentence for people."""
    champion: Model | None = None
    """As it stood when the night began, and as the candidate was compared with it."""
    candidate: Model | None = None
    """None where nothing was trained."""
    tests: Annotated[list[Annotated[dict[str, Any], fits(Test)]], FailFast()] = []
    """``stages.promotion.judge.Comparison`` as JSON, one for each text that both were held to."""
    label: str = ""
    """``download.as_of`` of that night."""
    download: str | None = None
    """The key of the text that it judged."""
    differs: dict[str, tuple[Any, Any]] = {}
    """``train.hidden_size`` → what the champion was trained with, and what tonight; of each setting that differs."""
    lost: bool = False
    """Whether the candidate was held to the champion, this night or one before, and did not take its place."""

    @property
    def bits(self) -> float | None:
        """Bits per character of that night's test text, of whoever was the champion afterwards; None if unmeasured."""
        today = next((test for test in self.tests if test.get("text") == "today"), {})
        bits: float | None = today.get("bits" if self.decision == "promoted" else "bits_champion")
        return bits if bits is not None and math.isfinite(bits) else None


def read(store: Store, name: str = naming.DEFAULT) -> list[NightRecord]:
    """All nights of a name, the newest last. A line that cannot be read is left out, with a warning.

    Raises:
        ConfigError: what cannot be a name.
        StoreError: a file that cannot be read.
    """
    found: list[NightRecord] = []
    unread: list[int] = []
    for number, line in enumerate(_lines(store, name), 1):
        if night := _night(line):
            found.append(night)
        elif len(unread) <= _NAMED:
            unread.append(number)
    for number in unread[:_NAMED]:
        logger.warning("line %d of %s is no night's, and is left out", number, _path(store, name))
    if unread[_NAMED:]:
        logger.warning("further lines of %s from line %d on are no nights, either", _path(store, name), unread[-1])
    return found


def add(store: Store, night: NightRecord) -> None:
    """Add a night to those of its name, and forget those of more than two years ago.

    Raises:
        StoreError: a file that cannot be read or written.
    """
    oldest = (datetime.now(UTC) - timedelta(days=KEPT_DAYS)).isoformat()

    def waiting() -> None:
        logger.info("another process is noting a night; waiting for it")

    with store.lock("nights", "", waiting):
        kept = bytearray()
        for line in _lines(store, night.name):
            if (before := _night(line)) is None or before.when >= oldest:  # what is none is for a person to mend
                kept += line + b"\n"
        path = _path(store, night.name)
        try:
            make(store.own(FOLDER))
            replace(path, bytes(kept) + f"{night.model_dump_json()}\n".encode(), store.root)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written ({error.strerror}): make it writable, or free some space"
            ) from None


def names(store: Store) -> list[str]:
    """The names that had nights, in the order of the alphabet."""
    found = [path.stem for path in store.entries(FOLDER) if path.suffix == ".jsonl"]
    return [name for name in found if naming.fits(name)]


def refused(store: Store) -> set[str]:
    """The keys of texts that a night found unfit, under whatever name; a file that cannot be read says of none."""
    found = set()
    for name in names(store):
        with suppress(StoreError):
            found |= {one.download for one in read(store, name) if one.decision == "refused" and one.download}
    return found


def pages(store: Store) -> set[str]:
    """The reports that the page of all nights leads to, below the store's folder."""
    found: set[str] = set()
    for name in names(store):
        with suppress(StoreError):
            models = [model for one in read(store, name) for model in (one.champion, one.candidate)]
            found |= {model.page for model in models if model and model.page}
    return found


def as_json(store: Store, night: NightRecord) -> dict[str, Any]:
    """What `rnnlm night --json` prints of a night, and the flow `retrain` returns."""

    def model(one: Model | None) -> dict[str, Any] | None:
        if one is None:
            return None
        artifact = str(store.folder(champions.STAGE, one.key))
        return {"key": one.key, "artifact": artifact, "since": one.since, "page": one.page}

    return {
        "decision": night.decision,
        "name": night.name,
        "reason": night.reason,
        "champion": model(night.champion),
        "candidate": model(night.candidate),
        "tests": night.model_dump(mode="json")["tests"],
    }


def _lines(store: Store, name: str) -> Iterator[bytes]:
    path = _path(store, name)
    try:
        content = reading.read(path, _LARGEST)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path} does not say what the nights decided ({error.strerror}): make it readable") from None
    for line in io.BytesIO(content):
        yield line.removesuffix(b"\n")


def _night(line: bytes) -> NightRecord | None:
    """The night that a line tells of; None where it tells of none."""
    if not line.startswith(b"{") or len(line) > reading.SMALL:
        return None
    try:
        return parsed(NightRecord, line)
    except (ValueError, RecursionError):
        return None


def _path(store: Store, name: str) -> Path:
    return store.root / FOLDER / f"{naming.check(name)}.jsonl"
