"""The reports of a store: of each run a page, Markdown and its curve, in ``reports/``; of its nights ``index.html``.

Beside a run's page lies a record of what it says that no artifact holds: which stages ran and why, and the verdict. So
a page is made again from artifacts and record, and no stage runs, when its words or its drawing have changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast

from data.errors import StoreError
from data.shown import line
from data.store import fingerprint, loaded
from data.store.files import replace as put
from data.store.manifest import File
from data.store.reading import SMALL, digest, read
from data.store.shape import FEW, fits, parsed
from stages.report.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data.store.folder import Store
    from stages.pipeline.run import Outcome

_FOLDER = Path(__file__).parent


def _text(path: Path) -> bytes:
    noted = loaded.source(f"{__package__}.{path.stem}")
    return noted.text if noted else path.read_bytes()


_WORDS = fingerprint.digest(
    {path.name: hashlib.sha256(_text(path)).hexdigest() for path in _FOLDER.iterdir() if path.suffix in (".py", ".j2")}
)
"""Of all that a report is made with, as this process has loaded it."""


class Told(BaseModel):
    """What became of a stage, as `Outcome.json` has it."""

    name: str
    state: Literal["ran", "cached"]
    key: str
    artifact: str
    seconds: float
    reason: str


class Record(BaseModel):
    """What is written beside a page, as JSON."""

    model_config = ConfigDict(extra="forbid")

    words: str
    """`_WORDS` of the code that made the page."""
    stages: Annotated[list[Told], FailFast()]
    verdict: Annotated[dict[str, Any], fits(Verdict)] | None
    """``stages.promotion.judge.Verdict`` as JSON; None where nothing was to be promoted."""
    description: str
    summary: str
    files: Annotated[list[File], FailFast()]
    """The names of what was written with it."""
    digests: Annotated[dict[File, str], FEW] = {}
    """The SHA-256 of each; not there in records that were written before these were."""


@dataclass(frozen=True)
class Kept:
    """A report, and what a command prints of it."""

    page: Path | None
    """The HTML file; None for a report that is kept nowhere."""
    markdown: str
    files: list[Path]
    """All that was written for it."""
    metrics: dict[str, Any]
    """``metrics.json``, with the sentences ``description`` and ``summary``."""


def keep(store: Store, outcomes: Sequence[Outcome], verdict: Mapping[str, Any] | None = None) -> Kept:
    """See that there is a report of a run; it is written where it is missing or would say something else now.

    Args:
        store: where the run's artifacts are.
        outcomes: what became of each stage, the evaluation last.
        verdict: ``stages.promotion.judge.Verdict`` as JSON; by default the one that the report had before, if any.

    Raises:
        StoreError: a place that cannot be written.
    """
    # A run's report goes by the evaluation that the run ended with.
    page = store.root / "reports" / f"{outcomes[-1].artifact.manifest.key[:16]}.html"
    record = _read(page)
    anew = verdict is not None or outcomes[-1].state == "ran"
    if anew or record is None or record.words != _WORDS or not _whole(page, record):
        if record is not None:
            verdict = verdict or record.verdict
            outcomes = outcomes if anew else [_as_before(outcome, record) for outcome in outcomes]
        store.own("reports")
        with store.lock("reports", page.stem, lambda: None):  # two runs of one thing end at one moment
            record = _write(page, outcomes, verdict)
    metrics = json.loads(read(outcomes[-1].artifact.folder / "metrics.json", SMALL))
    sentences = {"description": record.description, "summary": record.summary}
    files = [page.with_suffix(".json"), *map(page.with_name, record.files)]
    return Kept(page, page.with_suffix(".md").read_text(encoding="utf-8"), files, {**metrics, **sentences})


def unkept(outcomes: Sequence[Outcome]) -> Kept:
    """The report of a run in a store that takes none, without a picture."""
    from stages.report import markdown
    from stages.report.gather import gather

    report = gather(outcomes)
    sentences = {"description": report.description, "summary": report.summary}
    return Kept(None, markdown.text(report, ""), [], {**report.metrics, **sentences})


def index(store: Store) -> Path:
    """Write the page of all nights, ``index.html`` in the store's folder.

    Raises:
        StoreError: nights that cannot be read, or a place that cannot be written.
    """
    from data.store import nights
    from stages.report.nights import html

    page = store.root / "index.html"
    told = {name: nights.read(store, name) for name in nights.names(store)}
    try:
        put(page, html(told).encode())
    except OSError as error:
        raise StoreError(f"{page} cannot be written ({error.strerror}): make it writable") from error
    return page


def _read(page: Path) -> Record | None:
    """The record beside a page; None where it is missing or broken."""
    try:
        return parsed(Record, read(page.with_suffix(".json"), SMALL))
    except (OSError, ValueError, RecursionError):
        return None


def _whole(page: Path, record: Record) -> bool:
    """Whether a report's files are there as they were written."""
    if not {page.name, page.with_suffix(".md").name} <= record.digests.keys() == {*record.files}:
        return False
    try:
        return all(digest(page.with_name(name)) == sha256 for name, sha256 in record.digests.items())
    except OSError:
        return False


def _as_before(outcome: Outcome, record: Record) -> Outcome:
    """What became of a stage in the run that its artifact was last reported of: a report that is only made again
    still tells of that one."""
    before = next((one for one in record.stages if one.key == outcome.artifact.manifest.key), None)
    return replace(outcome, state=before.state, seconds=before.seconds, reason=before.reason) if before else outcome


def _told(outcome: Outcome) -> Told:
    told = outcome.json()
    return Told.model_validate({**told, "artifact": line(told["artifact"])})  # its path need not be UTF-8, as JSON is


def _write(page: Path, outcomes: Sequence[Outcome], verdict: Mapping[str, Any] | None) -> Record:
    """Put a report's files into their places, each whole or not at all, the record last."""
    from stages.report import charts, markdown, svg
    from stages.report.gather import gather
    from stages.report.page import html

    report = gather(outcomes, verdict)
    curve = charts.learning_curve(report.history, report.metrics, report.unit)
    picture = page.with_suffix(".svg")
    contents = {
        **({picture: svg.picture(curve)} if curve else {}),
        page.with_suffix(".md"): markdown.text(report, picture.name if curve else ""),
        page: html(report),
    }
    record = Record(
        words=_WORDS,
        stages=[_told(outcome) for outcome in outcomes],
        verdict=None if verdict is None else dict(verdict),
        description=report.description,
        summary=report.summary,
        files=[path.name for path in contents],
        digests={path.name: hashlib.sha256(content.encode()).hexdigest() for path, content in contents.items()},
    )
    contents[page.with_suffix(".json")] = record.model_dump_json(indent=1) + "\n"
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            put(path, content.encode())
    except OSError as error:
        raise StoreError(
            f"the report {page} cannot be written ({error.strerror}): name another place for it"
        ) from error
    return record
