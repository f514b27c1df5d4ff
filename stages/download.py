"""The download stage: the bytes of a corpus, fetched or copied, unpacked, and checked to be UTF-8 text.

Every refusal is one sentence that says what came instead of a text.
"""

from __future__ import annotations

import codecs
import contextlib
import datetime
import errno
import gzip
import hashlib
import html
import http
import json
import logging
import re
import stat
import struct
import time
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data.corpora import Source, resolve
from data.errors import CorpusError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    import httpx

    from stages.config import DownloadConfig
    from stages.progress import Progress

logger = logging.getLogger(__name__)

CHUNK = 1 << 18
MAX_BYTES = 4 << 30
"""The most that is fetched for one corpus, and the most that it may unpack to."""


@dataclass(frozen=True)
class Patience:
    """How often one address is asked and how long it is waited for, in seconds."""

    attempts: int = 4
    connect: float = 10.0
    read: float = 30.0
    wait: float = 0.5
    """Before the second attempt, doubled for each one after it; up to as much again is added at random."""
    wait_max: float = 5.0
    """Also the most of a Retry-After that is honoured."""


@dataclass
class _Arrival:
    """What has come from one address so far, and what a request for the rest needs to know."""

    file: BinaryIO
    done: int = 0
    total: int = 0  # bytes, 0 while unknown
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    validator: str = ""  # ETag or Last-Modified: the rest must be of the same file
    content_type: str = ""
    retry_after: float | None = None

    def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.done, self.total, self.digest, self.validator = 0, 0, hashlib.sha256(), ""


def download(config: DownloadConfig, out: Path, progress: Progress) -> None:
    """Write ``out/corpus.txt``, the text byte for byte, and ``out/source.json``, where it came from.

    Raises TransientError where a network was at fault and another try may help, CorpusError where it will not.
    """
    obtain(resolve(config.corpus), out, progress)


def obtain(source: Source, out: Path, progress: Progress, patience: Patience | None = None) -> None:
    """``download`` of a resolved source. ``progress`` counts bytes and shows their rate."""
    part, text = out / "corpus.part", out / "corpus.txt"
    try:
        if source.path is not None:
            origin = {"file": source.path.name}
            sha256 = _copy(source, source.path, part, progress)
        else:
            address, sha256 = _fetch_first(source, part, progress, patience or Patience())
            origin = {"address": address}
        size = part.stat().st_size
        unpacked = _unpack(source.name, part, text)
    finally:
        part.unlink(missing_ok=True)
    _check_text(source.name, text)
    record = {
        "name": source.name,
        **origin,
        "sha256": sha256,
        "bytes": size,
        **({"text_sha256": unpacked} if unpacked else {}),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    (out / "source.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


# --- a local file


def _copy(source: Source, path: Path, part: Path, progress: Progress) -> str:
    started, done, digest = time.monotonic(), 0, hashlib.sha256()
    total = path.stat().st_size if path.exists() else 0
    with part.open("wb") as file:
        for chunk in _chunks_of(source.name, path):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress(done, total, _rate(done, started))
    if digest.hexdigest() != source.sha256:
        raise CorpusError(f"the corpus file {source.name!r} changed while it was read; run again once it is complete")
    return digest.hexdigest()


def _chunks_of(name: str, path: Path) -> Iterator[bytes]:
    """Bytes of the user's file. Only reading is guarded: what fails where they are written is not the corpus' fault."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise CorpusError(f"the corpus file {name!r} cannot be read: {error.strerror or error}") from None


# --- an http(s) address


def _fetch_first(source: Source, part: Path, progress: Progress, patience: Patience) -> tuple[str, str]:
    """Fetch from the first address that sends what it should; return that address and the sha256 of the bytes."""
    import httpx

    failures: list[CorpusError] = []
    with httpx.Client(
        follow_redirects=True,
        timeout=httpx.Timeout(patience.read, connect=patience.connect),
        # identity: sizes and ranges then count the bytes that arrive
        headers={"User-Agent": "rnnlm", "Accept-Encoding": "identity"},
    ) as client:
        for address in source.addresses:
            try:
                return address, _fetch(client, address, source.sha256, part, progress, patience)
            except CorpusError as failure:
                failures.append(failure)
                if address != source.addresses[-1]:
                    logger.warning("%s; trying the next address", failure)
    transient = any(isinstance(failure, TransientError) for failure in failures)
    what = "; ".join(map(str, failures))
    if len(failures) > 1:
        what = f"corpus {source.name!r} could not be had from any of its {len(failures)} addresses: {what}"
    if transient:
        raise TransientError(f"{what}; check the network and try again later")
    raise CorpusError(f"{what}; check the address, or get the text yourself and give the path of the file")


def _fetch(
    client: httpx.Client, address: str, sha256: str | None, part: Path, progress: Progress, patience: Patience
) -> str:
    """Fetch one address into ``part``, in as many attempts as it takes, and check that this is what was asked for."""
    import stamina

    with part.open("w+b") as file:
        arrival = _Arrival(file)

        def again(error: Exception) -> bool | float:
            if not isinstance(error, TransientError):
                return False
            return True if arrival.retry_after is None else min(arrival.retry_after, patience.wait_max)

        attempts = stamina.retry_context(
            on=again,
            attempts=patience.attempts,
            timeout=None,
            wait_initial=patience.wait,
            wait_jitter=patience.wait,
            wait_max=patience.wait_max,
        )
        try:
            for attempt in attempts:
                with attempt:
                    if attempt.num > 1:
                        logger.warning("%s: attempt %d of %d", address, attempt.num, patience.attempts)
                    _request(client, address, arrival, progress)
        except TransientError as error:
            raise TransientError(f"{error} ({patience.attempts} attempts)") from error
        _check_arrival(address, arrival, sha256)
        return arrival.digest.hexdigest()


def _request(client: httpx.Client, address: str, arrival: _Arrival, progress: Progress) -> None:
    """Ask once for what is missing and take in what comes. Raises TransientError where asking again may help."""
    import httpx

    arrival.retry_after = None
    headers = {"Range": f"bytes={arrival.done}-"} if arrival.done else {}
    if arrival.done and arrival.validator:
        headers["If-Range"] = arrival.validator
    try:
        with client.stream("GET", address, headers=headers) as response:
            _begin(address, response, arrival)
            started, first = time.monotonic(), arrival.done
            for chunk in response.iter_raw():
                arrival.file.write(chunk)
                arrival.digest.update(chunk)
                arrival.done += len(chunk)
                _check_size(address, arrival.done)
                progress(arrival.done, arrival.total, _rate(arrival.done - first, started))
    except httpx.ConnectTimeout:
        raise TransientError(f"{address} could not be connected to in {client.timeout.connect:g} s") from None
    except httpx.TimeoutException:
        raise TransientError(f"{address} sent nothing for {client.timeout.read:g} s{_so_far(arrival)}") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError) as error:
        raise CorpusError(f"{address} leads nowhere: {_plain(str(error))}") from None
    except httpx.RequestError as error:
        if arrival.done:
            raise TransientError(f"{address} broke off{_so_far(arrival)}") from None
        raise TransientError(f"{address} cannot be reached: {_plain(str(error)) or 'connection lost'}") from None
    if arrival.done < arrival.total:  # a range that ends early is complete as a message
        raise TransientError(f"{address} broke off{_so_far(arrival)}")


def _begin(address: str, response: httpx.Response, arrival: _Arrival) -> None:
    """Judge status and headers, and make ``arrival`` ready for the body that follows."""
    status = response.status_code
    if status == 416 or (status == 206 and not _continues(response, arrival)):
        arrival.restart()
        raise TransientError(f"{address} sent another part of the file than was asked for")
    if status >= 500 or status in (408, 429):
        wait = response.headers.get("Retry-After", "").strip()
        arrival.retry_after = float(wait) if re.fullmatch(r"[0-9]{1,9}", wait) else None  # a date: the usual backoff
        raise TransientError(f"{address} answered with status {_status(status)}")
    if status not in (200, 206):
        raise CorpusError(f"{address} answered with status {_status(status)}")
    if status == 200:
        arrival.restart()  # the whole file, whatever range was asked for
        etag = response.headers.get("ETag", "")
        weak = etag.startswith("W/")  # a weak ETag may not stand in If-Range (RFC 9110, 13.1.5)
        arrival.validator = etag if etag and not weak else response.headers.get("Last-Modified", "")
    length = response.headers.get("Content-Length", "")
    if not arrival.total and length.isascii() and length.isdigit():
        arrival.total = arrival.done + int(length)
    _check_size(address, arrival.total)
    arrival.content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _continues(response: httpx.Response, arrival: _Arrival) -> bool:
    """Whether a 206 goes on where ``arrival`` stands, in a file of the same length."""
    found = re.fullmatch(
        r"bytes ([0-9]{1,19})-[0-9]+/([0-9]{1,19}|\*)", response.headers.get("Content-Range", "").strip()
    )
    if found is None or int(found[1]) != arrival.done:
        return False
    total = 0 if found[2] == "*" else int(found[2])
    if arrival.total and total and arrival.total != total:
        return False
    arrival.total = arrival.total or total
    return True


def _check_arrival(address: str, arrival: _Arrival, sha256: str | None) -> None:
    if arrival.done == 0:
        raise CorpusError(f"{address} sent an empty body")
    if arrival.digest.hexdigest() == sha256:
        return
    arrival.file.seek(0)
    head = arrival.file.read(1 << 14)
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:14].lower()
    if arrival.content_type in ("text/html", "application/xhtml+xml") or start.startswith(
        (b"<!doctype html", b"<html")
    ):
        title = re.search(rb"<title[^>]*>(.*?)</title", head, re.IGNORECASE | re.DOTALL)
        words = _plain(html.unescape(title[1].decode("utf-8", "replace"))) if title else ""
        titled = f" titled “{words}”" if words else ""
        raise CorpusError(f"{address} sent an HTML page{titled} instead of a text")
    if sha256:
        raise CorpusError(
            f"{address} sent {arrival.done:,} bytes with sha256 {arrival.digest.hexdigest()} instead of {sha256}"
        )


def _check_size(address: str, size: int) -> None:
    if size > MAX_BYTES:
        raise CorpusError(f"{address} sends more than the {MAX_BYTES:,} bytes that a corpus may have")


def _so_far(arrival: _Arrival) -> str:
    if not arrival.done:
        return ""
    return f" after {arrival.done:,}" + (f" of {arrival.total:,} bytes" if arrival.total else " bytes")


def _status(status: int) -> str:
    with contextlib.suppress(ValueError):
        return f"{status} ({http.HTTPStatus(status).phrase})"
    return str(status)


def _plain(text: str) -> str:
    """Foreign text made fit for one line of a terminal: short, and without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= 80 else line[:79] + "…"


def _rate(size: int, started: float) -> str:
    return f"{size / max(time.monotonic() - started, 1e-6) / 1e6:.1f} MB/s"


# --- from the bytes to the text


def _unpack(name: str, part: Path, text: Path) -> str | None:
    """Make ``text`` of ``part``; return the sha256 of the text where it had to be unpacked.

    What ``part`` is, its first bytes say: names and content types are often wrong.
    """
    with part.open("rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        chunks = _gunzip(name, part)
    elif magic in (b"PK\x03\x04", b"PK\x05\x06"):  # the second: an archive of nothing
        chunks = _unzip(name, part)
    else:
        part.replace(text)
        return None
    size, digest = 0, hashlib.sha256()
    with text.open("wb") as unpacked:
        for chunk in chunks:
            size += len(chunk)
            if size > MAX_BYTES:
                raise CorpusError(
                    f"corpus {name!r} unpacks to more than the {MAX_BYTES:,} bytes that a corpus may have"
                )
            unpacked.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def _gunzip(name: str, part: Path) -> Iterator[bytes]:
    try:
        with gzip.open(part) as packed:
            while chunk := packed.read(CHUNK):
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorpusError(f"corpus {name!r} is a damaged gzip file ({_plain(str(error))}); get it again") from None


def _unzip(name: str, part: Path) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(part) as archive, archive.open(_only_text(name, archive)) as packed:
            while chunk := packed.read(CHUNK):
                yield chunk
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error, struct.error, NotImplementedError, ValueError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: an offset before the file's start
            raise
        raise CorpusError(f"corpus {name!r} is a damaged zip archive ({_plain(str(error))}); get it again") from None


def _only_text(name: str, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if _is_text(member)]
    if len(members) != 1:
        names = ", ".join(repr(_plain(member.filename)) for member in members[:4])
        inside = f"{len(members)} files ({names}{', …' if len(members) > 4 else ''})" if members else "no file"
        raise CorpusError(
            f"corpus {name!r} is a zip archive with {inside} where exactly one text was expected; "
            "unpack it and give the path of the text"
        )
    (member,) = members
    if member.flag_bits & 0x1:
        raise CorpusError(f"corpus {name!r} is an encrypted zip archive; unpack it and give the path of the text")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile unpacks these without a bound on memory
        raise CorpusError(
            f"corpus {name!r} is a zip archive compressed otherwise than by deflate; "
            "unpack it and give the path of the text"
        )
    return member


def _is_text(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a regular file that somebody meant to pack."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    parts = member.filename.split("/")
    hidden = parts[0] == "__MACOSX" or parts[-1].startswith(".")
    return parts[-1] != "" and not hidden and kind in (0, stat.S_IFREG)


def _check_text(name: str, text: Path) -> None:
    """Refuse what is not UTF-8, what holds NUL bytes and what holds nothing but white space. Reads the file once."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    blank, offset, head = True, 0, b""
    with text.open("rb") as file:
        while True:
            chunk = file.read(CHUNK)
            head = head or chunk
            pending = len(decoder.getstate()[0])
            try:
                decoded = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise CorpusError(_not_utf8(name, head, offset - pending + error.start)) from None
            nul = chunk.find(b"\0")
            if nul >= 0:
                raise CorpusError(_not_utf8(name, head, offset + nul))
            blank = blank and not decoded.replace("\ufeff", "").strip()
            offset += len(chunk)
            if not chunk:
                break
    if offset == 0:
        raise CorpusError(f"corpus {name!r} is empty; give one that holds text")
    if blank:
        raise CorpusError(f"corpus {name!r} holds nothing but white space; give one that holds text")


def _not_utf8(name: str, head: bytes, offset: int) -> str:
    """What a text that is not UTF-8 seems to be, judged by its first bytes."""
    what = f"corpus {name!r} is not UTF-8 text (byte {offset:,})"
    encoding = _wide_encoding(head)
    if encoding:
        return f"{what} but seems to be {encoding}; convert it with `iconv -f {encoding} -t UTF-8` and give that file"
    if b"\0" in head:
        return f"{what} but seems to be a binary file; give a plain text"
    return f"{what}; if it is Latin-1, convert it with `iconv -f ISO-8859-1 -t UTF-8` and give the path of that file"


def _wide_encoding(head: bytes) -> str:
    """``UTF-16`` or ``UTF-32``, with its byte order where no mark gives it; empty if ``head`` looks like neither."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    # Mostly Western text: every other byte is NUL, the odd ones if the little end comes first.
    pairs = max(len(head) // 2, 1)
    if head[1::2].count(0) > 0.7 * pairs and head[::2].count(0) < 0.1 * pairs:
        return "UTF-16LE"
    if head[::2].count(0) > 0.7 * pairs and head[1::2].count(0) < 0.1 * pairs:
        return "UTF-16BE"
    return ""
