"""The download stage: a corpus, fetched or copied, unpacked, and checked to be text: one, or many documents."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from typing import TYPE_CHECKING

from data.corpus.archive import unpack
from data.corpus.arrival import is_page
from data.corpus.catalogue import MAX_BYTES, content, resolve
from data.corpus.encoding import UTF8, check_utf8, codec, convert
from data.corpus.fetch import Fetched, Patience, fetch, rate
from data.documents import rows
from data.documents.collected import Collected
from data.documents.columns import Columns
from data.documents.joined import TABLE, TEXT, join
from data.documents.reader import Reader, Reading
from data.errors import CorpusError
from data.moment import minute, now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from data.corpus.catalogue import Source
    from data.progress import Progress
    from stages.config import DownloadConfig

logger = logging.getLogger(__name__)

CHUNK = 1 << 18


def download(config: DownloadConfig, *, out: Path, progress: Progress, previous: Path | None = None) -> None:
    """Write ``out/corpus.txt``, the text in UTF-8, byte for byte where it was that, and ``out/source.json``, where it
    came from. Of many documents also ``out/documents.arrow``, where each of them lies in the text.

    In ``source.json`` ``when`` says since when the bytes are these, ``checked`` when they were last asked for and had
    not changed.

    Args:
        config: names the corpus, and says how it is read.
        out: an empty folder.
        progress: is told bytes, and their rate.
        previous: a sound folder that this stage wrote for the same corpus, read in the same way; what an address still
            has is carried over from it instead of being fetched again.

    Raises:
        TransientError: a network was at fault and another try may help.
        CorpusError: another try will not help.
        ConfigError: headers that are none, or say plainly what has to be kept secret; an encoding that is none.
    """
    reading = Reading(codec(config.encoding), Columns(config.text_column, config.order_column))
    source = resolve(config.corpus, config.headers)
    obtain(source, out=out, progress=progress, previous=previous, reading=reading)


def obtain(
    source: Source,
    *,
    out: Path,
    progress: Progress,
    patience: Patience = Patience(),  # noqa: B008 (frozen)
    previous: Path | None = None,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
) -> None:
    """`download` of a source that is resolved."""
    if previous and rows.kind(source.file_name) and not (previous / TABLE).exists():
        previous = None  # of a version that read tables as texts
    before = _read(previous) if previous and (source.addresses or source.each) else {}
    if previous and source.sha256 and source.sha256 == before.get("sha256"):
        logger.info(
            "%s: unchanged since %s, for it has the sha256 that it must have", source.name, minute(before["when"])
        )
        _carry(previous, out, before | {"name": source.name})
        return
    scratch = out / "scratch"
    scratch.mkdir()
    try:
        raw = scratch / "raw"
        if source.files is not None or source.each:
            found = _many(source, out, progress, patience, reading)
        else:
            origin = _raw(source, raw, progress, patience, before)
            if origin is None:
                assert previous
                logger.info("%s: unchanged since %s", source.name, minute(before["when"]))
                _carry(previous, out, before | {"checked": now("seconds")})
                return
            found = origin | _texts(source, raw, out, progress, reading)
    finally:
        shutil.rmtree(scratch)
    record = {"name": source.name, **found, "when": now("seconds")}
    if record["sha256"] == before.get("sha256"):
        logger.info("%s: sent again, but unchanged since %s", source.name, minute(before["when"]))
        record |= {"when": before["when"], "checked": record["when"]}
    _write(record, out)


def _many(source: Source, out: Path, progress: Progress, patience: Patience, reading: Reading) -> dict[str, Any]:
    """Write the documents of many files; what is noted of them."""
    scratch = out / "scratch"
    collected = Collected(source, Reader(source.name, reading, scratch, MAX_BYTES), progress)
    if source.files is not None:
        documents = collected.of_files(source.files)
    else:
        documents = collected.of_addresses(scratch / "raw", patience, MAX_BYTES)
    joined = join(source.name, documents, out, reading.columns, MAX_BYTES)
    return {**collected.record(), **joined}


def _raw(
    source: Source, raw: Path, progress: Progress, patience: Patience, before: dict[str, Any]
) -> dict[str, Any] | None:
    """Copy or fetch one file; what is noted of where it came from, None where it is what it was before."""
    if source.path is not None:
        name = source.path.name.encode(errors="backslashreplace").decode()
        return {"file": name, "sha256": _copy(source, source.path, raw, progress)}
    known = None if source.sha256 else _fetched(before)
    fetched = fetch(source, raw, progress, patience, MAX_BYTES, known)
    return {key: value for key, value in vars(fetched).items() if value} if fetched else None


def _texts(source: Source, raw: Path, out: Path, progress: Progress, reading: Reading) -> dict[str, Any]:
    """Write the text of one file, or its documents; what is noted of it."""
    scratch, text, size = out / "scratch", out / TEXT, raw.stat().st_size
    documents = Reader(source.name, reading, scratch, MAX_BYTES).several(source.file_name, raw)
    if documents is not None:
        return {"bytes": size, **join(source.name, documents, out, reading.columns, MAX_BYTES, progress)}
    sha256 = unpack(source.name, raw, text, MAX_BYTES)
    if reading.encoding == UTF8:
        check_utf8(source.name, text)
    else:
        text.rename(raw)
        sha256 = convert(source.name, raw, text, reading.encoding)
    with text.open("rb") as file:
        if is_page(file.read(CHUNK)):
            logger.warning("%s is an HTML page: its tags are learnt like all else in it", source.name)
    return {"bytes": size, **({"text_sha256": sha256} if sha256 else {})}


def _carry(previous: Path, out: Path, record: dict[str, Any]) -> None:
    """Take over the text of an earlier download; artifacts are never written to, so that two may share a file."""
    for name in (TEXT, *([TABLE] if (previous / TABLE).exists() else [])):
        try:
            (out / name).hardlink_to(previous / name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(previous / name, out / name)
    _write(record, out)


# --- source.json


def _read(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    return record


def _write(record: dict[str, Any], out: Path) -> None:
    (out / "source.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _fetched(record: dict[str, Any]) -> Fetched | None:
    """What a record says was fetched; None where it was a local file."""
    if "address" not in record:
        return None
    return Fetched(record["address"], record["sha256"], record.get("etag", ""))


# --- a local file


def _copy(source: Source, path: Path, raw: Path, progress: Progress) -> str:
    """Copy a file into the file ``raw`` and give its SHA-256, which must be what it was when it was resolved."""
    started, done, digest = time.monotonic(), 0, hashlib.sha256()
    with raw.open("wb") as file:
        for chunk, total in _chunks_of(source.name, path):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress(done, total, rate(done, started))
    if digest.hexdigest() != source.sha256:
        raise CorpusError(f"the corpus file {source.name!r} changed while it was read; run again once it is complete")
    return digest.hexdigest()


def _chunks_of(name: str, path: Path) -> Iterator[tuple[bytes, int]]:
    """Bytes of the user's file. Only reading is guarded: what fails where they are written is not the corpus' fault."""
    try:
        yield from content(path)
    except OSError as error:
        raise CorpusError(f"the corpus file {name!r} cannot be read: {error.strerror or error}") from None
