"""The download stage against a real HTTP server on loopback that misbehaves in every way it must survive."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import logging
import os
import random
import re
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from data.corpus.catalogue import Source
from data.corpus.fetch import Patience
from data.errors import CorpusError, RnnlmError, TransientError
from stages import download as stage
from stages.config import DownloadConfig
from stages.download import download, obtain

if TYPE_CHECKING:
    from pathlib import Path

LETTERS = random.Random(0).choices("abcdefghij é\n", k=300_000)
TEXT = "".join(LETTERS).encode()
HASTE = Patience(attempts=4, connect=2, read=0.3, wait=0.01, wait_max=0.05)


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the route of its path, with the number of requests that came there before it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        before = len(self.server.asked(self.path))
        self.server.requests.append((self.path, dict(self.headers.items())))
        self.server.routes[self.path](self, before)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def head(self, status: int = 200, **headers: str | int) -> None:
        """The status line and headers; an underscore stands for a hyphen."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def body(self, body: bytes, status: int = 200, **headers: str | int) -> None:
        self.head(status, **headers, Content_Length=len(body))
        self.send(body)

    def send(self, body: bytes) -> None:
        self.server.sent += len(body)  # before the client can know
        self.wfile.write(body)

    def rest(self, body: bytes) -> None:
        """The range that was asked for, as a well-behaved server sends it."""
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.body(body[start:], 206, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}", ETag='"1"')

    def cut(self, body: bytes, after: int, reset: bool, **headers: str | int) -> None:
        """Promise the whole body and break the connection off in the middle."""
        self.head(200, **headers, Content_Length=len(body))
        self.send(body[:after])
        self.wfile.flush()
        if reset:
            time.sleep(0.05)  # or the reset overtakes the bytes
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


Route = Callable[[Handler, int], None]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, Route] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent = 0

    def route(self, path: str, route: Route) -> str:
        """The address at which ``route`` now answers."""
        self.routes[path] = route
        return f"http://127.0.0.1:{self.server_port}{path}"

    def asked(self, path: str = "/a") -> list[dict[str, str]]:
        """The headers of every request to ``path`` so far."""
        return [headers for asked, headers in self.requests if asked == path]

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up is part of the tests


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


@dataclass
class Seen:
    """What progress was told."""

    calls: list[tuple[float, float, str]] = field(default_factory=list)

    def __call__(self, done: float, total: float, figures: str) -> None:
        self.calls.append((done, total, figures))


def fetched(out: Path, *addresses: str, sha256: str | None = None, previous: Path | None = None) -> bytes:
    """The text that the stage makes of these addresses."""
    out.mkdir(exist_ok=True)
    obtain(Source("test", addresses, None, sha256), out, Seen(), HASTE, previous)
    assert sorted(path.name for path in out.iterdir()) == ["corpus.txt", "source.json"]
    return (out / "corpus.txt").read_bytes()


def refused(out: Path, *addresses: str, sha256: str | None = None) -> RnnlmError:
    with pytest.raises(CorpusError) as refusal:
        obtain(Source("test", addresses, None, sha256), out, Seen(), HASTE)
    assert "\n" not in str(refusal.value)
    assert not (out / "source.json").exists()
    assert not (out / "corpus.part").exists()
    return refusal.value


def record(out: Path) -> dict[str, Any]:
    """What the stage noted of where the text is from."""
    noted: dict[str, Any] = json.loads((out / "source.json").read_text(encoding="utf-8"))
    return noted


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def zipped(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name.replace("__slash__", "/"), body)
    return packed.getvalue()


# --- what works


def test_a_good_address(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, _: h.body(TEXT))
    seen = Seen()
    download(DownloadConfig(corpus=address), tmp_path, seen)
    assert (tmp_path / "corpus.txt").read_bytes() == TEXT
    record = json.loads((tmp_path / "source.json").read_text(encoding="utf-8"))
    assert record.pop("when").endswith("+00:00")
    assert record == {"name": address, "address": address, "sha256": sha(TEXT), "bytes": len(TEXT)}
    assert server.asked()[0]["Accept-Encoding"] == "identity"
    assert seen.calls[-1][:2] == (len(TEXT), len(TEXT))
    assert seen.calls[-1][2].endswith(" MB/s")
    assert [done for done, _, _ in seen.calls] == sorted(done for done, _, _ in seen.calls)


def test_byte_order_mark_and_line_ends_stay(server: Server, tmp_path: Path) -> None:
    body = b"\xef\xbb\xbfone\r\ntwo\rthree\n\n"
    assert fetched(tmp_path, server.route("/a", lambda h, _: h.body(body)), sha256=sha(body)) == body


def test_a_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    server.route("/b", lambda h, _: h.body(TEXT))
    assert fetched(tmp_path, server.route("/a", lambda h, _: h.body(b"", 302, Location="/b"))) == TEXT


def test_an_unknown_length_is_no_hindrance(server: Server, tmp_path: Path) -> None:
    def chunked(handler: Handler, _: int) -> None:
        handler.head(Transfer_Encoding="chunked")
        for start in range(0, len(TEXT), 50_000):
            piece = TEXT[start : start + 50_000]
            handler.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.send(b"0\r\n\r\n")

    assert fetched(tmp_path, server.route("/a", chunked)) == TEXT


# --- what is asked again


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (500, {}),
        (503, {}),
        (503, {"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        (429, {"Retry_After": "0"}),
        (429, {"Retry_After": "86400"}),
    ],
)
def test_busy_twice_then_good(server: Server, tmp_path: Path, status: int, headers: dict[str, str]) -> None:
    address = server.route("/a", lambda h, n: h.body(b"busy", status, **headers) if n < 2 else h.body(TEXT))
    assert fetched(tmp_path, address) == TEXT
    assert len(server.asked()) == 3


def test_retry_after_is_waited_for_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", naps.append)

    def busy_then_cut(handler: Handler, n: int) -> None:
        if n == 0:
            handler.body(b"", 429, Retry_After="3")
        elif n == 1:
            handler.cut(TEXT, 200_000, False)
        else:
            handler.rest(TEXT)

    address = server.route("/a", busy_then_cut)
    obtain(Source("test", (address,), None, None), tmp_path, Seen(), Patience())
    assert naps[0] == 3.0
    assert 1.0 <= naps[1] <= 1.5  # the usual backoff: 0.5 s doubled, and the jitter


def test_busy_for_ever_is_transient(server: Server, tmp_path: Path) -> None:
    error = refused(tmp_path, server.route("/a", lambda h, _: h.body(b"", 503)))
    assert isinstance(error, TransientError)
    assert "answered with status 503 (Service Unavailable) (4 attempts); check the network" in str(error)
    assert len(server.asked()) == 4


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("validator", ["ETag", "Last_Modified", "none"])
def test_a_cut_is_resumed(server: Server, tmp_path: Path, reset: bool, validator: str) -> None:
    value = {"ETag": '"1"', "Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "none": ""}[validator]
    headers = {validator: value} if value else {}
    address = server.route("/a", lambda h, n: h.rest(TEXT) if n else h.cut(TEXT, 200_000, reset, **headers))
    assert fetched(tmp_path, address, sha256=sha(TEXT)) == TEXT
    first, second = server.asked()
    assert "Range" not in first
    assert second["Range"].startswith("bytes=")
    assert second["Range"] != "bytes=0-"
    assert second.get("If-Range", "") == value
    assert server.sent < 2 * len(TEXT)


def test_a_weak_tag_is_not_relied_on(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, n: h.rest(TEXT) if n else h.cut(TEXT, 200_000, True, ETag='W/"1"'))
    assert fetched(tmp_path, address) == TEXT
    assert "If-Range" not in server.asked()[1]


def test_cut_again_and_again(server: Server, tmp_path: Path) -> None:
    def shorter_ranges(handler: Handler, n: int) -> None:
        start = n * 100_000
        if n == 0:
            handler.cut(TEXT, 100_000, False)
        else:
            span = f"bytes {start}-{start + 99_999}/{len(TEXT)}"
            handler.body(TEXT[start : start + 100_000], 206, Content_Range=span)

    assert fetched(tmp_path, server.route("/a", shorter_ranges)) == TEXT
    assert [asked.get("Range") for asked in server.asked()][:3] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_that_ignores_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, n: h.body(TEXT) if n else h.cut(TEXT[::-1], 200_000, True))
    assert fetched(tmp_path, address) == TEXT
    assert "Range" in server.asked()[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 416},
        {"status": 206, "Content_Range": f"bytes 7-{len(TEXT) - 1}/{len(TEXT)}"},
        {"status": 206, "Content_Range": "bytes 200000-999999/1000000"},
        {"status": 206},
    ],
    ids=["416", "wrong start", "another length", "no Content-Range"],
)
def test_a_wrong_range_starts_over(server: Server, tmp_path: Path, wrong: dict[str, str]) -> None:
    def route(handler: Handler, n: int) -> None:
        if n == 0:
            handler.cut(TEXT, 200_000, False)
        elif n == 1:
            handler.body(b"another part", **wrong)  # type: ignore[arg-type]
        else:
            handler.body(TEXT)

    assert fetched(tmp_path, server.route("/a", route)) == TEXT
    assert ["Range" in asked for asked in server.asked()] == [False, True, False]


@pytest.mark.parametrize("after", [0, 200_000])
def test_silence_runs_into_the_timeout(server: Server, tmp_path: Path, after: int) -> None:
    def silent_at_first(handler: Handler, n: int) -> None:
        if n:
            handler.rest(TEXT) if "Range" in handler.headers else handler.body(TEXT)
            return
        if after:
            handler.cut(TEXT, after, False)
        time.sleep(0.6)

    assert fetched(tmp_path, server.route("/a", silent_at_first)) == TEXT
    assert len(server.asked()) == 2


def test_silence_for_ever_is_transient(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, _: time.sleep(0.5))
    error = refused(tmp_path, address)
    assert isinstance(error, TransientError)
    assert f"{address} sent nothing for 0.3 s (4 attempts)" in str(error)


def test_nobody_there_is_transient(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a"
    error = refused(tmp_path, address)
    assert isinstance(error, TransientError)
    assert "cannot be reached" in str(error)


# --- what is refused


def test_not_found_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, _: h.body(b"nothing here", 404))
    error = refused(tmp_path, address)
    assert not isinstance(error, TransientError)
    assert f"{address} answered with status 404 (Not Found); check the address" in str(error)
    assert len(server.asked()) == 1


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/a", "/a"], ids=["another scheme", "itself"])
def test_a_redirect_to_nowhere(server: Server, tmp_path: Path, target: str) -> None:
    error = refused(tmp_path, server.route("/a", lambda h, _: h.body(b"", 302, Location=target)))
    assert not isinstance(error, TransientError)
    assert "leads nowhere" in str(error)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html; charset=utf-8", b"<p>Sign in"),
        ("text/plain", b"\xef\xbb\xbf \n<!DOCTYPE html><p>Sign in"),
        ("", b"\n<HTML lang=en>Sign in"),
    ],
)
def test_an_html_page_with_status_200(server: Server, tmp_path: Path, content_type: str, body: bytes) -> None:
    address = server.route("/a", lambda h, _: h.body(body, Content_Type=content_type))
    assert f"{address} sent an HTML page instead of a text" in str(refused(tmp_path, address))


def test_the_title_of_a_page_is_quoted_safely(server: Server, tmp_path: Path) -> None:
    page = b"<html><title>\n Log&nbsp;in &amp; pay \x1b[31m" + b"x" * 500 + b"</title>"
    address = server.route("/a", lambda h, _: h.body(page, Content_Type="text/html"))
    error = str(refused(tmp_path, address, sha256=sha(TEXT)))
    assert "sent an HTML page titled “Log in & pay [31mxxx" in error
    assert "\x1b" not in error
    assert len(error) < 300


def test_a_page_that_is_the_corpus_is_taken(server: Server, tmp_path: Path) -> None:
    page = b"<html>the corpus itself</html>"
    address = server.route("/a", lambda h, _: h.body(page, Content_Type="text/html"))
    assert fetched(tmp_path, address, sha256=sha(page)) == page


def test_a_wrong_hash(server: Server, tmp_path: Path) -> None:
    error = refused(tmp_path, server.route("/a", lambda h, _: h.body(b"other")), sha256=sha(TEXT))
    assert f"sent 5 bytes with sha256 {sha(b'other')} instead of {sha(TEXT)}" in str(error)


@pytest.mark.parametrize("sha256", [None, sha(TEXT)])
def test_an_empty_body(server: Server, tmp_path: Path, sha256: str | None) -> None:
    error = refused(tmp_path, server.route("/a", lambda h, _: h.body(b"")), sha256=sha256)
    assert "sent an empty body" in str(error)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("a café".encode("latin-1"), r"not UTF-8 text \(byte 5\); if it is Latin-1, convert it with `iconv"),
        (TEXT + b"\xc3", rf"not UTF-8 text \(byte {len(TEXT):,}\)"),
        ("é".encode() * 200_000 + b"\xff", r"not UTF-8 text \(byte 400,000\)"),
        (b"x" + "é".encode() * 131_071 + b"\xc3(", r"not UTF-8 text \(byte 262,143\)"),  # cut by a chunk's border
        ("text".encode("utf-16"), "seems to be UTF-16; convert it with `iconv -f UTF-16 -t UTF-8`"),
        ("text".encode("utf-32"), "seems to be UTF-32; convert it with `iconv -f UTF-32 -t UTF-8`"),
        ("plain text".encode("utf-16-le"), r"\(byte 1\) but seems to be UTF-16LE"),
        ("plain text".encode("utf-16-be"), r"\(byte 0\) but seems to be UTF-16BE"),
        (b"some\0text", r"\(byte 4\) but seems to be a binary file"),
        (b"\x89PNG\r\n\0\0\0\rIHDR", "seems to be a binary file"),
        (b" \n\t\r\n ", "nothing but white space"),
        (b"\xef\xbb\xbf\n", "nothing but white space"),
        (gzip.compress(b"", mtime=0), "is empty"),
    ],
)
def test_not_a_text(server: Server, tmp_path: Path, body: bytes, says: str) -> None:
    address = server.route("/a", lambda h, _: h.body(body))
    assert re.search(says, str(refused(tmp_path, address)))


def test_too_large_is_refused_before_it_is_read(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "MAX_BYTES", 1000)
    address = server.route("/a", lambda h, _: h.head(Content_Length=1001))
    assert "sends more than the 1,000 bytes that a corpus may have" in str(refused(tmp_path, address))
    assert fetched(tmp_path, server.route("/b", lambda h, _: h.body(b"a" * 1000))) == b"a" * 1000


def test_too_large_without_a_length(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MAX_BYTES", 1000)

    def endless(handler: Handler, _: int) -> None:
        handler.head(Transfer_Encoding="chunked")
        while True:
            handler.send(b"400\r\n%s\r\n" % (b"a" * 0x400))

    assert "more than the 1,000 bytes" in str(refused(tmp_path, server.route("/a", endless)))
    assert len(server.asked()) == 1


# --- mirrors


def test_mirrors_are_tried_in_turn(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    addresses = [
        server.route("/missing", lambda h, _: h.body(b"", 404)),
        server.route("/busy", lambda h, _: h.body(b"", 503)),
        server.route("/page", lambda h, _: h.body(b"<html>", Content_Type="text/html")),
        server.route("/empty", lambda h, _: h.body(b"")),
        server.route("/other", lambda h, _: h.body(b"other, and longer than the right one" * 20_000)),
        server.route("/good", lambda h, _: h.body(TEXT)),
        server.route("/unneeded", lambda h, _: h.body(TEXT)),
    ]
    assert fetched(tmp_path, *addresses, sha256=sha(TEXT)) == TEXT
    assert json.loads((tmp_path / "source.json").read_text(encoding="utf-8"))["address"] == addresses[5]
    assert not server.asked("/unneeded")
    assert "404 (Not Found); trying the next address" in caplog.text


def test_a_resume_never_mixes_mirrors(server: Server, tmp_path: Path) -> None:
    cut = server.route("/cut", lambda h, n: h.body(b"", 404) if n else h.cut(b"z" * 300_000, 200_000, False))
    good = server.route("/good", lambda h, _: h.rest(TEXT) if "Range" in h.headers else h.body(TEXT))
    assert fetched(tmp_path, cut, good) == TEXT


def test_when_all_mirrors_fail_each_is_named(server: Server, tmp_path: Path) -> None:
    missing = server.route("/missing", lambda h, _: h.body(b"", 404))
    empty = server.route("/empty", lambda h, _: h.body(b""))
    busy = server.route("/busy", lambda h, _: h.body(b"", 503))
    error = refused(tmp_path, missing, empty)
    assert not isinstance(error, TransientError)
    assert "corpus 'test' could not be had from any of its 2 addresses" in str(error)
    assert f"{missing} answered with status 404 (Not Found); {empty} sent an empty body" in str(error)
    assert isinstance(refused(tmp_path, busy, missing), TransientError)


# --- what was fetched before

DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
VERSIONS = {"strong": {"ETag": '"1"'}, "weak": {"ETag": 'W/"1"'}}
CONDITIONS = ("If-None-Match", "If-Modified-Since")


def versioned(body: bytes, **version: str) -> Route:
    """A well-behaved server of one version of a file."""
    wanted = {"If-None-Match": version.get("ETag"), "If-Modified-Since": version.get("Last_Modified")}

    def route(handler: Handler, _: int) -> None:
        asked = [name for name in CONDITIONS if handler.headers[name] is not None]
        if asked and handler.headers[asked[0]] == wanted[asked[0]]:
            handler.head(304, **version)
        else:
            handler.body(body, 200, **version)

    return route


def redirect(target: str) -> Route:
    return lambda handler, _: handler.body(b"", 302, Location=target)


def conditions(asked: dict[str, str]) -> dict[str, str]:
    return {name: asked[name] for name in CONDITIONS if name in asked}


def earlier(out: Path, address: str) -> Path:
    """A first download of an address, some time ago."""
    fetched(out, address)
    (out / "source.json").write_text(json.dumps(record(out) | {"when": "2026-01-02T03:04:05+00:00"}), encoding="utf-8")
    return out


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
def test_an_unchanged_file_is_carried_over(
    server: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    version: dict[str, str],
    pack: Callable[[bytes], bytes],
) -> None:
    caplog.set_level(logging.INFO)
    address = server.route("/a", versioned(pack(TEXT), **version))
    first = earlier(tmp_path / "first", address)
    sent = server.sent
    assert fetched(tmp_path / "second", address, previous=first) == TEXT
    assert server.sent == sent
    assert conditions(server.asked()[0]) == {}
    assert list(conditions(server.asked()[1]).values()) == list(version.values())
    assert "test: unchanged since 2026-01-02 03:04 UTC" in caplog.text
    second = record(tmp_path / "second")
    assert second.pop("checked") > second["when"] == "2026-01-02T03:04:05+00:00"
    assert second == record(first)

    # and once more, from what was carried over
    assert fetched(tmp_path / "third", address, previous=tmp_path / "second") == TEXT
    assert record(tmp_path / "third")["when"] == second["when"]
    assert server.sent == sent


def test_the_stage_takes_what_it_made_before(server: Server, tmp_path: Path) -> None:
    config = DownloadConfig(corpus=server.route("/a", versioned(TEXT, ETag='"1"')))
    for name, previous in ("first", None), ("second", tmp_path / "first"):
        (tmp_path / name).mkdir()
        download(config, tmp_path / name, Seen(), previous=previous)
    assert (tmp_path / "second" / "corpus.txt").samefile(tmp_path / "first" / "corpus.txt")
    assert server.sent == len(TEXT)


def test_a_file_system_without_links(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    address = server.route("/a", versioned(TEXT, ETag='"1"'))
    assert fetched(tmp_path / "second", address, previous=earlier(tmp_path / "first", address)) == TEXT
    assert not (tmp_path / "second" / "corpus.txt").samefile(tmp_path / "first" / "corpus.txt")


def test_a_changed_file_replaces_the_earlier_one(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", versioned(TEXT, ETag='"1"', Last_Modified=DATE))
    first = earlier(tmp_path / "first", address)
    server.route("/a", versioned(b"a new chapter", ETag='"2"', Last_Modified="Thu, 22 Oct 2015 07:28:00 GMT"))
    assert fetched(tmp_path / "second", address, previous=first) == b"a new chapter"
    assert (first / "corpus.txt").read_bytes() == TEXT
    second = record(tmp_path / "second")
    assert second["when"] > record(first)["when"]
    assert (second["sha256"], second["etag"]) == (sha(b"a new chapter"), '"2"')
    assert "checked" not in second


def test_a_server_that_knows_no_versions_sends_all_again(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    address = server.route("/a", lambda h, _: h.body(TEXT))
    first = earlier(tmp_path / "first", address)
    assert fetched(tmp_path / "second", address, previous=first) == TEXT
    assert conditions(server.asked()[1]) == {}
    assert "sent again, but unchanged since 2026-01-02 03:04 UTC" in caplog.text
    assert record(tmp_path / "second").pop("checked") > record(tmp_path / "second")["when"] == record(first)["when"]


def test_unchanged_after_a_busy_moment(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, n: h.body(b"", 503) if n == 1 else versioned(TEXT, ETag='"1"')(h, n))
    assert fetched(tmp_path / "second", address, previous=earlier(tmp_path / "first", address)) == TEXT
    assert len(server.asked()) == 3


def test_a_changed_file_that_breaks_off_is_resumed_without_condition(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", versioned(b"old", ETag='"0"'))
    first = earlier(tmp_path / "first", address)
    server.route("/a", lambda h, n: h.rest(TEXT) if n > 1 else h.cut(TEXT, 200_000, False, ETag='"1"'))
    assert fetched(tmp_path / "second", address, previous=first) == TEXT
    whole, rest = server.asked()[1:]
    assert conditions(whole) == {"If-None-Match": '"0"'}
    assert conditions(rest) == {}
    assert rest["If-Range"] == '"1"'


def test_nothing_new_is_no_answer_in_the_middle_of_a_changed_file(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", versioned(b"old", ETag='"0"'))
    first = earlier(tmp_path / "first", address)
    server.route("/a", lambda h, n: h.head(304) if n > 1 else h.cut(TEXT, 200_000, False, ETag='"1"'))
    with pytest.raises(CorpusError, match=r"304 \(Not Modified\) though it was asked for the file as it is"):
        fetched(tmp_path / "second", address, previous=first)


@pytest.mark.parametrize("after", [0, 200_000])
def test_nothing_new_is_no_answer_to_who_has_nothing(server: Server, tmp_path: Path, after: int) -> None:
    def nothing(handler: Handler, n: int) -> None:
        handler.cut(TEXT, after, False) if after and n == 0 else handler.head(304)

    error = refused(tmp_path, address := server.route("/a", nothing))
    assert not isinstance(error, TransientError)
    assert f"{address} answered with status 304 (Not Modified) though it was asked for the file as it is" in str(error)


def test_the_version_of_one_mirror_says_nothing_of_another(server: Server, tmp_path: Path) -> None:
    first = earlier(tmp_path / "first", server.route("/a", versioned(TEXT, ETag='"1"')))
    other = server.route("/b", versioned(b"another text", ETag='"1"'))
    assert fetched(tmp_path / "second", other, previous=first) == b"another text"
    assert conditions(server.asked("/b")[0]) == {}

    gone = server.route("/gone", lambda h, _: h.body(b"", 404))
    mine = record(first)["address"]
    assert fetched(tmp_path / "third", gone, mine, previous=first) == TEXT
    assert conditions(server.asked("/gone")[0]) == {}
    assert conditions(server.asked("/a")[-1]) == {"If-None-Match": '"1"'}


def test_a_date_says_nothing_of_what_is_there(server: Server, tmp_path: Path) -> None:
    first = earlier(tmp_path / "first", address := server.route("/a", versioned(b"broken", Last_Modified=DATE)))
    server.route("/a", versioned(TEXT, Last_Modified=DATE))  # the good file is back, with its old date
    assert fetched(tmp_path / "second", address, previous=first) == TEXT


def test_behind_a_redirect_a_tag_is_good(server: Server, tmp_path: Path) -> None:
    server.route("/b", versioned(TEXT, ETag='"1"'))
    address = server.route("/a", redirect("/b"))
    assert fetched(tmp_path / "second", address, previous=earlier(tmp_path / "first", address)) == TEXT
    assert server.sent == len(TEXT)


def test_a_version_is_noted_only_of_a_file_that_is_sure_to_be_whole(server: Server, tmp_path: Path) -> None:
    def of_unknown_length(handler: Handler, _: int) -> None:
        handler.head(ETag='"1"', Last_Modified=DATE)
        handler.send(TEXT[:1000])

    def of_two_parts(handler: Handler, n: int) -> None:
        handler.rest(TEXT) if n else handler.cut(TEXT, 200_000, False, ETag='W/"1"')

    for path, route in ("/a", of_unknown_length), ("/b", of_two_parts):
        fetched(tmp_path, server.route(path, route))
        assert "etag" not in record(tmp_path)


@pytest.mark.parametrize("tag", ["1", '"caf\xe9"', '"' + "1" * 5000 + '"', '"1" "2"', ""])
def test_a_tag_that_is_none_is_not_sent_back(server: Server, tmp_path: Path, tag: str) -> None:
    address = server.route("/a", versioned(TEXT, ETag=tag))
    assert fetched(tmp_path / "second", address, previous=earlier(tmp_path / "first", address)) == TEXT
    assert [conditions(asked) for asked in server.asked()] == [{}, {}]


def test_a_known_content_needs_no_request(server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    address = server.route("/a", versioned(TEXT, ETag='"1"'))
    first = earlier(tmp_path / "first", address)
    assert fetched(tmp_path / "second", address, sha256=sha(TEXT), previous=first) == TEXT
    assert len(server.asked()) == 1
    assert record(tmp_path / "second") == record(first)
    assert "test: unchanged since 2026-01-02 03:04 UTC" in caplog.text

    new = server.route("/a", lambda h, _: h.head(304) if conditions(dict(h.headers)) else h.body(b"new"))
    assert fetched(tmp_path / "third", new, sha256=sha(b"new"), previous=first) == b"new"


# --- archives


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(TEXT, mtime=0),
        gzip.compress(TEXT[:1000], mtime=0) + gzip.compress(TEXT[1000:], mtime=0),
        zipped(**{"a.txt": TEXT}),
        zipped(**{"folder/": b"", "folder/a.txt": TEXT, "__MACOSX/a.txt": b"-", "folder/.DS_Store": b"-"}),
    ],
    ids=["gzip", "gzip of two members", "zip", "zip with clutter"],
)
def test_an_archive_is_unpacked(server: Server, tmp_path: Path, packed: bytes) -> None:
    assert fetched(tmp_path, server.route("/a.txt", lambda h, _: h.body(packed)), sha256=sha(packed)) == TEXT
    record = json.loads((tmp_path / "source.json").read_text(encoding="utf-8"))
    assert (record["sha256"], record["bytes"], record["text_sha256"]) == (sha(packed), len(packed), sha(TEXT))


@pytest.mark.parametrize("pack", [gzip.compress, lambda body: zipped(bomb=body)], ids=["gzip", "zip"])
def test_a_bomb_stops_at_the_cap(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(stage, "MAX_BYTES", 1_000_000)
    packed = pack(b"a" * 50_000_000)
    assert len(packed) < 100_000
    address = server.route("/a", lambda h, _: h.body(packed))
    assert "unpacks to more than the 1,000,000 bytes" in str(refused(tmp_path, address))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000_000


def test_a_zip_that_lies_about_its_size(server: Server, tmp_path: Path) -> None:
    packed = zipped(a=TEXT).replace(struct.pack("<I", len(TEXT)), struct.pack("<I", 10))
    assert "damaged zip archive" in str(refused(tmp_path, server.route("/a", lambda h, _: h.body(packed))))


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (zipped(**{"a.txt": b"a", "b.txt": b"b"}), r"zip archive with 2 files \('a.txt', 'b.txt'\) where exactly one"),
        (zipped(**{f"{i}.txt": b"a" for i in range(9)}), r"9 files \('0.txt', '1.txt', '2.txt', '3.txt', …\)"),
        (zipped(), "zip archive with no file"),
        (zipped(a=TEXT)[:-30], "damaged zip archive"),
        (zipped(a=TEXT).replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"), "encrypted zip"),
        (zipped(a=TEXT).replace(b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x0c\0"), "compressed otherwise than by deflate"),
        (gzip.compress(TEXT, mtime=0)[:-2000], "damaged gzip file"),
        (gzip.compress(TEXT, mtime=0)[:-8] + bytes(8), "damaged gzip file"),
        (b"\x1f\x8b" + TEXT, "damaged gzip file"),
    ],
    ids=["two", "nine", "none", "torn zip", "encrypted", "bzip2", "torn gzip", "wrong checksum", "magic only"],
)
def test_archives_that_are_refused(server: Server, tmp_path: Path, packed: bytes, says: str) -> None:
    address = server.route("/a", lambda h, _: h.body(packed))
    assert re.search(says, str(refused(tmp_path, address)))


# --- local files


def test_a_local_file(tmp_path: Path) -> None:
    mine, out, seen = tmp_path / "mine.txt", tmp_path / "out", Seen()
    out.mkdir()
    mine.write_bytes(TEXT)
    download(DownloadConfig(corpus=str(mine)), out, seen)
    assert (out / "corpus.txt").read_bytes() == mine.read_bytes() == TEXT
    record = json.loads((out / "source.json").read_text(encoding="utf-8"))
    assert record.pop("when")
    assert record == {"name": str(mine), "file": "mine.txt", "sha256": sha(TEXT), "bytes": len(TEXT)}
    assert seen.calls[-1][:2] == (len(TEXT), len(TEXT))


def test_a_local_file_is_read_again_whatever_was_before(server: Server, tmp_path: Path) -> None:
    first = earlier(tmp_path / "first", server.route("/a", versioned(TEXT, ETag='"1"')))
    mine, out = tmp_path / "mine.txt", tmp_path / "out"
    out.mkdir()
    mine.write_bytes(TEXT)
    download(DownloadConfig(corpus=str(mine)), out, Seen(), first)
    assert record(out).keys() == {"name", "file", "sha256", "bytes", "when"}
    assert not (out / "corpus.txt").samefile(first / "corpus.txt")
    assert len(server.asked()) == 1


def test_a_local_archive_is_unpacked(tmp_path: Path) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    out.mkdir()
    mine.write_bytes(gzip.compress(TEXT))
    download(DownloadConfig(corpus=str(mine)), out, Seen())
    assert (out / "corpus.txt").read_bytes() == TEXT


def test_a_local_html_page_is_text(tmp_path: Path) -> None:
    mine, out = tmp_path / "mine.html", tmp_path / "out"
    out.mkdir()
    mine.write_bytes(b"<html>mine</html>")
    download(DownloadConfig(corpus=str(mine)), out, Seen())
    assert (out / "corpus.txt").read_bytes() == mine.read_bytes()


def test_a_local_file_that_changes_or_vanishes(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    source = Source(str(mine), (), mine, sha(b"as it was"))
    mine.write_bytes(b"as it is")
    with pytest.raises(CorpusError, match=r"mine.txt' changed while it was read"):
        obtain(source, tmp_path, Seen())
    mine.unlink()
    with pytest.raises(CorpusError, match=r"mine.txt' cannot be read: No such file"):
        obtain(source, tmp_path, Seen())


def test_an_empty_local_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.touch()
    with pytest.raises(CorpusError, match=r"mine.txt' is empty"):
        download(DownloadConfig(corpus=str(mine)), tmp_path, Seen())


def test_a_failing_disk_is_not_blamed_on_the_corpus(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_bytes(TEXT)
    with pytest.raises(FileNotFoundError):
        download(DownloadConfig(corpus=str(mine)), tmp_path / "no such folder", Seen())
