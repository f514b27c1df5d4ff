"""What has come from one address so far: what to ask it next, and whether what it sends is what was asked for."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import html
import http
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from data.errors import CorpusError, TransientError

if TYPE_CHECKING:
    from typing import BinaryIO

    import httpx


@dataclass
class Arrival:
    """A file on its way from an address, in one response or several."""

    address: str
    file: BinaryIO
    """Where its bytes go; open for reading and writing."""
    limit: int
    """The most bytes it may have."""
    known: str = ""
    """ETag of what came from this very address before; empty where there is nothing to ask about."""
    unchanged: bool = False
    """Whether the address said that it still has just that."""
    done: int = 0
    """Bytes in ``file``."""
    total: int = 0
    """Bytes of the whole, 0 while unknown."""
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    """Of the bytes in ``file``."""
    etag: str = ""
    last_modified: str = ""
    content_type: str = ""
    retry_after: float | None = None
    """Seconds for which the server asked to be left alone."""

    def headers(self) -> dict[str, str]:
        """Of the next request: for the rest, for the whole file, or for the whole file if it is another than before."""
        if self.done:
            resume = {"Range": f"bytes={self.done}-"}
            return {**resume, "If-Range": self._validator} if self._validator else resume
        return {"If-None-Match": self.known} if self.known else {}

    def begin(self, response: httpx.Response) -> None:
        """Judge status and headers, and get ready for the body that follows; there is none where it is ``unchanged``.

        Raises:
            TransientError: asking again may help.
            CorpusError: it will not.
        """
        status = response.status_code
        if status == 416 or (status == 206 and not self._goes_on(response)):
            self._restart()
            raise TransientError(f"{self.address} sent another part of the file than was asked for")
        if status >= 500 or status in (408, 429):
            wait = response.headers.get("Retry-After", "").strip()
            self.retry_after = float(wait) if re.fullmatch(r"[0-9]{1,9}", wait) else None  # a date: the usual backoff
            raise TransientError(f"{self.address} answered with status {_status(status)}")
        if status == 304:
            if not self.known or self.done:
                raise CorpusError(
                    f"{self.address} answered with status {_status(status)} though it was asked for the file as it is"
                )
            self.unchanged = True
            return
        if status not in (200, 206):
            raise CorpusError(f"{self.address} answered with status {_status(status)}")
        if status == 200:
            self._restart()  # the whole file, whatever range was asked for
            self._note_version(response)
        length = response.headers.get("Content-Length", "")
        if not self.total and length.isascii() and length.isdigit():
            self.total = self.done + int(length)
        self._check_size(self.total)
        self.content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def take(self, chunk: bytes) -> None:
        """Take in the next bytes.

        Raises:
            CorpusError: they are more than ``limit``.
        """
        self.file.write(chunk)
        self.digest.update(chunk)
        self.done += len(chunk)
        self._check_size(self.done)

    def check(self, sha256: str | None) -> None:
        """Refuse what is whole and yet not what was asked for.

        Raises:
            CorpusError: it is empty, a web page, or has another digest than ``sha256``.
        """
        if self.done == 0:
            raise CorpusError(f"{self.address} sent an empty body")
        if self.digest.hexdigest() == sha256:
            return
        self.file.seek(0)
        head = self.file.read(1 << 14)
        start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:14].lower()
        page = self.content_type in ("text/html", "application/xhtml+xml")
        if page or start.startswith((b"<!doctype html", b"<html")):
            title = re.search(rb"<title[^>]*>(.*?)</title", head, re.IGNORECASE | re.DOTALL)
            words = plain(html.unescape(title[1].decode("utf-8", "replace"))) if title else ""
            titled = f" titled “{words}”" if words else ""
            raise CorpusError(f"{self.address} sent an HTML page{titled} instead of a text")
        if sha256:
            raise CorpusError(
                f"{self.address} sent {self.done:,} bytes with sha256 {self.digest.hexdigest()} instead of {sha256}"
            )

    @property
    def so_far(self) -> str:
        """How much has come, to end a sentence with; empty where nothing has."""
        if not self.done:
            return ""
        return f" after {self.done:,}" + (f" of {self.total:,} bytes" if self.total else " bytes")

    @property
    def _validator(self) -> str:
        """That the rest must be of the same file. A weak ETag may not say so (RFC 9110, 13.1.5)."""
        return self.etag if self.etag.startswith('"') else self.last_modified

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.done, self.total, self.digest = 0, 0, hashlib.sha256()
        self.etag = self.last_modified = ""

    def _goes_on(self, response: httpx.Response) -> bool:
        """Whether a 206 goes on where this stands, in a file of the same length."""
        found = re.fullmatch(
            r"bytes ([0-9]{1,19})-[0-9]+/([0-9]{1,19}|\*)", response.headers.get("Content-Range", "").strip()
        )
        if found is None or int(found[1]) != self.done:
            return False
        total = 0 if found[2] == "*" else int(found[2])
        if self.total and total and self.total != total:
            return False
        self.total = self.total or total
        if not self._validator:
            self.etag = ""  # nobody promised that the rest is of this version
        return True

    def _note_version(self, response: httpx.Response) -> None:
        """Note what the server calls this version of the file, where that can be relied on to ask about it later."""
        headers = response.headers
        if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
            return  # whether all of it came can never be told, and what was cut short must not stay for ever
        if re.fullmatch(r'(W/)?"[!#-~]{0,500}"', etag := headers.get("ETag", "")):
            self.etag = etag
        date = headers.get("Last-Modified", "")
        if re.fullmatch(r"[ -~]{1,50}", date):
            self.last_modified = date

    def _check_size(self, size: int) -> None:
        if size > self.limit:
            raise CorpusError(f"{self.address} sends more than the {self.limit:,} bytes that a corpus may have")


def plain(text: str) -> str:
    """Foreign text made fit for one line of a terminal: short, and without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= 80 else line[:79] + "…"


def _status(status: int) -> str:
    with contextlib.suppress(ValueError):
        return f"{status} ({http.HTTPStatus(status).phrase})"
    return str(status)
