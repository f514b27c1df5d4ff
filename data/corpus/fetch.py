"""Bytes from http(s) addresses: resumed where they break off, capped in size, and asked for only if they have changed.

Every refusal is one sentence that says what came instead of the file.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import html
import http
import logging
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data.errors import CorpusError, TransientError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    import httpx

    from data.corpus.catalogue import Source
    from data.progress import Progress

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Fetched:
    """What was fetched from where, and what its address calls this version of it."""

    address: str
    sha256: str
    """Hex digest of the bytes as they came."""
    etag: str = ""
    """Empty where the server gives none. A date would be no substitute: a file put back with its old date, or changed
    twice within a second, goes unnoticed."""


@dataclass
class _Arrival:
    """What has come from one address so far, and what a request for the rest needs to know."""

    file: BinaryIO
    limit: int  # bytes
    known: Fetched | None = None  # what came from this very address before, if it can be asked about
    unchanged: bool = False  # and is what is still there
    done: int = 0
    total: int = 0  # bytes, 0 while unknown
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    etag: str = ""
    last_modified: str = ""
    content_type: str = ""
    retry_after: float | None = None

    def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.done, self.total, self.digest = 0, 0, hashlib.sha256()
        self.etag = self.last_modified = ""

    @property
    def validator(self) -> str:
        """That the rest must be of the same file. A weak ETag may not say so (RFC 9110, 13.1.5)."""
        return self.etag if self.etag.startswith('"') else self.last_modified

    def headers(self) -> dict[str, str]:
        """Of the next request: for the rest, for the whole file, or for the whole file if it is another than before."""
        if self.done:
            resume = {"Range": f"bytes={self.done}-"}
            return {**resume, "If-Range": self.validator} if self.validator else resume
        return {"If-None-Match": self.known.etag} if self.known else {}


def fetch(
    source: Source, part: Path, progress: Progress, patience: Patience, limit: int, known: Fetched | None = None
) -> Fetched | None:
    """Fetch into ``part`` from the first address that sends what it should, at most ``limit`` bytes.

    With ``known`` its address is asked for another version only; None says that there is none, and ``part`` is empty.
    ``progress`` counts bytes and shows their rate.

    Raises:
        TransientError: a network or a server was at fault, and another try may help.
        CorpusError: another try will not help.
    """
    import httpx

    failures: list[CorpusError] = []
    try:
        client = httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(patience.read, connect=patience.connect),
            # identity: sizes and ranges then count the bytes that arrive
            headers={"User-Agent": "rnnlm", "Accept-Encoding": "identity"},
        )
    except (OSError, ValueError) as error:
        raise CorpusError(f"SSL_CERT_FILE or a proxy in the environment cannot be used: {_plain(str(error))}") from None
    with client:
        for address in source.addresses:
            try:
                with part.open("w+b") as file:
                    arrival = _Arrival(file, limit)
                    if known and known.address == address and known.etag:
                        arrival.known = known
                    return _fetch(client, address, source.sha256, arrival, progress, patience)
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
    client: httpx.Client, address: str, sha256: str | None, arrival: _Arrival, progress: Progress, patience: Patience
) -> Fetched | None:
    """Fetch from one address, in as many attempts as it takes, and check that this is what was asked for."""
    import stamina

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
    if arrival.unchanged:
        return None
    _check_arrival(address, arrival, sha256)
    return Fetched(address, arrival.digest.hexdigest(), arrival.etag)


def _request(client: httpx.Client, address: str, arrival: _Arrival, progress: Progress) -> None:
    """Ask once for what is missing and take in what comes. Raises TransientError where asking again may help."""
    import httpx

    arrival.retry_after = None
    try:
        with client.stream("GET", address, headers=arrival.headers()) as response:
            _begin(address, response, arrival)
            if arrival.unchanged:
                return
            started, first = time.monotonic(), arrival.done
            for chunk in response.iter_raw():
                arrival.file.write(chunk)
                arrival.digest.update(chunk)
                arrival.done += len(chunk)
                _check_size(address, arrival.done, arrival.limit)
                progress(arrival.done, arrival.total, rate(arrival.done - first, started))
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
    if status == 416 or (status == 206 and not _goes_on(response, arrival)):
        arrival.restart()
        raise TransientError(f"{address} sent another part of the file than was asked for")
    if status >= 500 or status in (408, 429):
        wait = response.headers.get("Retry-After", "").strip()
        arrival.retry_after = float(wait) if re.fullmatch(r"[0-9]{1,9}", wait) else None  # a date: the usual backoff
        raise TransientError(f"{address} answered with status {_status(status)}")
    if status == 304:
        if arrival.known is None or arrival.done:
            raise CorpusError(
                f"{address} answered with status {_status(304)} though it was asked for the file as it is"
            )
        arrival.unchanged = True
        return
    if status not in (200, 206):
        raise CorpusError(f"{address} answered with status {_status(status)}")
    if status == 200:
        arrival.restart()  # the whole file, whatever range was asked for
        _note_version(response, arrival)
    length = response.headers.get("Content-Length", "")
    if not arrival.total and length.isascii() and length.isdigit():
        arrival.total = arrival.done + int(length)
    _check_size(address, arrival.total, arrival.limit)
    arrival.content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _note_version(response: httpx.Response, arrival: _Arrival) -> None:
    """Note what the server calls this version of the file, where that can be relied on to ask about it later."""
    headers = response.headers
    if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
        return  # whether all of it came can never be told, and what was cut short must not stay for ever
    if re.fullmatch(r'(W/)?"[!#-~]{0,500}"', etag := headers.get("ETag", "")):
        arrival.etag = etag
    date = headers.get("Last-Modified", "")
    if re.fullmatch(r"[ -~]{1,50}", date):
        arrival.last_modified = date


def _goes_on(response: httpx.Response, arrival: _Arrival) -> bool:
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
    if not arrival.validator:
        arrival.etag = ""  # nobody promised that both parts are of this version
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


def _check_size(address: str, size: int, limit: int) -> None:
    if size > limit:
        raise CorpusError(f"{address} sends more than the {limit:,} bytes that a corpus may have")


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


def rate(size: int, started: float) -> str:
    """Megabytes per second since a moment of ``time.monotonic``."""
    return f"{size / max(time.monotonic() - started, 1e-6) / 1e6:.1f} MB/s"
