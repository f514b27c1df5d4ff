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

from data.corpus.address import HIDDEN
from data.errors import CorpusError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    import httpx


_CODINGS = ("", "identity", "gzip", "x-gzip", "zstd")
"""How a body may be encoded: what it is packed by in the end, its first bytes say."""


@dataclass
class Arrival:
    """A file on its way from an address, in one response or several."""

    address: str
    """Without secrets: every sentence names it."""
    file: BinaryIO
    """Where its bytes go; open for reading and writing."""
    limit: int
    """The most bytes it may have."""
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    """What it is asked with that must be written nowhere, though whoever is asked may say it again."""
    known: str = ""
    """ETag of what came from this very address before; empty where there is nothing to ask about."""
    unchanged: bool = False
    """Whether the address said that it still has just that."""
    done: int = 0
    """Bytes in ``file``."""
    total: int = 0
    """Bytes of the whole, 0 while unknown."""
    stop: int = 0
    """Where the response that is being read has to end, 0 where it does not say."""
    received: int = 0
    """Bytes taken in so far, those among them that had to be dropped again."""
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    """Of the bytes in ``file``."""
    etag: str = ""
    last_modified: str = ""
    content_type: str = ""
    retry_after: float | None = None
    """Seconds for which the server asked to be left alone."""

    def headers(self) -> dict[str, str]:
        """Of the next request: for the rest, for the whole file, or for the whole file if it is another than before.

        Where nothing can tell whether the rest is of the same version of the file, that is begun again.
        """
        if self.done and self._validator:
            return {"Range": f"bytes={self.done}-", "If-Range": self._validator}
        if self.done:
            self._restart()
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
            raise TransientError(
                f"{self.address} sent something else than the rest of the same file, which is begun again"
            )
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
            coding = response.headers.get("Content-Encoding", "").strip().lower()
            if coding not in _CODINGS:
                raise CorpusError(
                    f"{self.address} sent the text packed by {self.plain(coding)}, though it was asked for it as it is"
                )
            self.total = self.stop = _length(response) or 0
        self._check_size(self.total)
        self.content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def take(self, chunk: bytes) -> None:
        """Take in the next bytes.

        Raises:
            TransientError: they are more than there should be; none is kept.
            CorpusError: they are more than ``limit``.
        """
        self.received += len(chunk)
        if self.stop and self.done + len(chunk) > self.stop:
            self._restart()
            raise TransientError(f"{self.address} sent more bytes than it said, and the file is begun again")
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
        if self.content_type in ("text/html", "application/xhtml+xml") or is_page(head):
            title = re.search(rb"<title[^>]*>(.*?)</title", head, re.IGNORECASE | re.DOTALL)
            words = self.plain(html.unescape(title[1].decode("utf-8", "replace"))) if title else ""
            titled = f" titled “{words}”" if words else ""
            raise CorpusError(f"{self.address} sent an HTML page{titled} instead of a text")
        if sha256:
            raise CorpusError(
                f"{self.address} sent {self.done:,} bytes with sha256 {self.digest.hexdigest()} instead of {sha256}"
            )

    def plain(self, text: str) -> str:
        """Foreign text made fit for one line of a terminal, without what is secret."""
        return plain(text, self.secrets)

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
        self.done, self.total, self.stop, self.digest = 0, 0, 0, hashlib.sha256()
        self.etag = self.last_modified = ""

    def _goes_on(self, response: httpx.Response) -> bool:
        """Whether a 206 goes on where this stands, in the same version of the file (RFC 9110, 15.3.7), and adds up."""
        found = re.fullmatch(
            r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", response.headers.get("Content-Range", "").strip()
        )
        if found is None or int(found[1]) != self.done:
            return False
        stop, total = int(found[2]) + 1, self.total if found[3] == "*" else int(found[3])
        if not self.done < stop <= total or (self.total or total) != total:
            return False
        if _length(response) not in (None, stop - self.done) or not self._same_version(response):
            return False
        self.total, self.stop = total, stop
        return True

    def _same_version(self, response: httpx.Response) -> bool:
        """Whether a response names the version that this is of, and in no way another."""
        ours = {"ETag": self.etag, "Last-Modified": self.last_modified}
        theirs = {name: response.headers.get(name, "") for name in ours}
        if any(ours[name] and theirs[name] and ours[name] != theirs[name] for name in ours):
            return False
        return self._validator != "" and self._validator in theirs.values()

    def _note_version(self, response: httpx.Response) -> None:
        """Note what the server calls this version of the file, where that can be relied on to ask about it later."""
        headers = response.headers
        if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
            return  # whether all of it came can never be told, and what was cut short must not stay for ever
        if re.fullmatch(r'(W/)?"[!#-~]{0,500}"', etag := headers.get("ETag", "")) and not any(
            secret in etag for secret in self.secrets
        ):
            self.etag = etag
        date = headers.get("Last-Modified", "")
        if re.fullmatch(r"[ -~]{1,50}", date):
            self.last_modified = date

    def _check_size(self, size: int) -> None:
        if size > self.limit:
            raise CorpusError(f"{self.address} sends more than the {self.limit:,} bytes that a corpus may have")


def is_page(head: bytes) -> bool:
    """Whether a file that begins like this is an HTML page."""
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:14].lower()
    return start.startswith((b"<!doctype html", b"<html"))


def plain(text: str, secrets: Iterable[str] = ()) -> str:
    """Foreign text made fit for one line of a terminal: short, and without control characters and ``secrets``."""
    for secret in sorted(secrets, key=len, reverse=True):  # one may begin with another
        text = text.replace(secret, HIDDEN)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= 80 else line[:79] + "…"


def _length(response: httpx.Response) -> int | None:
    """Bytes of a response's body, where it says how many."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else None


def _status(status: int) -> str:
    with contextlib.suppress(ValueError):
        return f"{status} ({http.HTTPStatus(status).phrase})"
    return str(status)
