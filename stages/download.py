"""The download stage: the bytes of a corpus, fetched or copied, unpacked, and checked to be UTF-8 text."""

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
from data.corpus.encoding import check_utf8
from data.corpus.fetch import Fetched, Patience, fetch, rate
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
    """Write ``out/corpus.txt``, the text byte for byte, and ``out/source.json``, where it came from.

    In ``source.json`` ``when`` says since when the bytes are these, ``checked`` when they were last asked for and had
    not changed.

    Args:
        config: names the corpus.
        out: an empty folder.
        progress: is told bytes, and their rate.
        previous: a sound folder that this stage wrote for the same corpus; what an address still has is carried over
            from it instead of being fetched again.

    Raises:
        TransientError: a network was at fault and another try may help.
        CorpusError: another try will not help.
        ConfigError: headers that are none, or say plainly what has to be kept secret.
    """
    obtain(resolve(config.corpus, config.headers), out=out, progress=progress, previous=previous)


def obtain(
    source: Source,
    *,
    out: Path,
    progress: Progress,
    patience: Patience = Patience(),  # noqa: B008 (frozen)
    previous: Path | None = None,
) -> None:
    """`download` of a source that is resolved."""
    before = _read(previous) if previous and source.path is None else {}
    if previous and source.sha256 and source.sha256 == before.get("sha256"):
        logger.info(
            "%s: unchanged since %s, for it has the sha256 that it must have", source.name, minute(before["when"])
        )
        _carry(previous, out, before | {"name": source.name})
        return
    raw, text = out / "corpus.part", out / "corpus.txt"
    try:
        if source.path is not None:
            origin = {
                "file": source.path.name.encode(errors="backslashreplace").decode(),
                "sha256": _copy(source, source.path, raw, progress),
            }
        else:
            known = None if source.sha256 else _fetched(before)
            fetched = fetch(source, raw, progress, patience, MAX_BYTES, known)
            if fetched is None:
                assert previous
                logger.info("%s: unchanged since %s", source.name, minute(before["when"]))
                _carry(previous, out, before | {"checked": now("seconds")})
                return
            origin = {key: value for key, value in vars(fetched).items() if value}
        size = raw.stat().st_size
        unpacked = unpack(source.name, raw, text, MAX_BYTES)
    finally:
        raw.unlink(missing_ok=True)
    check_utf8(source.name, text)
    with text.open("rb") as file:
        if is_page(file.read(CHUNK)):
            logger.warning("%s is an HTML page: its tags are learnt like all else in it", source.name)
    record = {
        "name": source.name,
        **origin,
        "bytes": size,
        **({"text_sha256": unpacked} if unpacked else {}),
        "when": now("seconds"),
    }
    if record["sha256"] == before.get("sha256"):
        logger.info("%s: sent again, but unchanged since %s", source.name, minute(before["when"]))
        record |= {"when": before["when"], "checked": record["when"]}
    _write(record, out)


def _carry(previous: Path, out: Path, record: dict[str, Any]) -> None:
    """Take over the text of an earlier download; artifacts are never written to, so that two may share a file."""
    try:
        (out / "corpus.txt").hardlink_to(previous / "corpus.txt")
    except OSError:  # another file system, or one without links
        shutil.copyfile(previous / "corpus.txt", out / "corpus.txt")
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
