"""Fetching from a real HTTP server on loopback that misbehaves in every way that must be survived."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from data.corpus.catalogue import Source
from data.corpus.fetch import Fetched, Patience, fetch
from data.errors import CorpusError, RnnlmError, TransientError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Handler, Server

TEXT = "".join(random.Random(0).choices("abcdefghij é\n", k=300_000)).encode()
HASTE = Patience(attempts=4, connect=2, read=0.3, wait=0.01, wait_max=0.05)
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


def ask(
    folder: Path,
    *addresses: str,
    sha256: str | None = None,
    known: Fetched | None = None,
    limit: int = 1 << 30,
    patience: Patience = HASTE,
) -> Fetched | None:
    """Fetch from these addresses into the file ``raw`` of a folder."""
    return fetch(Source("test", addresses, None, sha256), folder / "raw", lambda *_: None, patience, limit, known)


def first(folder: Path, address: str) -> Fetched:
    """What an earlier run fetched from an address."""
    found = ask(folder, address)
    assert found
    return found


def fetched(
    folder: Path, *addresses: str, sha256: str | None = None, known: Fetched | None = None, limit: int = 1 << 30
) -> bytes:
    """What these addresses sent."""
    found = ask(folder, *addresses, sha256=sha256, known=known, limit=limit)
    body = (folder / "raw").read_bytes()
    assert found
    assert found.sha256 == sha(body)
    return body


def refused(
    folder: Path, *addresses: str, sha256: str | None = None, limit: int = 1 << 30, patience: Patience = HASTE
) -> RnnlmError:
    with pytest.raises(CorpusError) as refusal:
        ask(folder, *addresses, sha256=sha256, limit=limit, patience=patience)
    assert "\n" not in str(refusal.value)
    return refusal.value


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


# --- what works


def test_a_good_address(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, _: h.body(TEXT))
    told: list[tuple[float, float, str]] = []
    source = Source("test", (address,), None, None)
    found = fetch(source, tmp_path / "raw", lambda *figures: told.append(figures), HASTE, len(TEXT))
    assert found == Fetched(address, sha(TEXT))
    assert (tmp_path / "raw").read_bytes() == TEXT
    assert server.asked()[0]["Accept-Encoding"] == "identity"
    assert told[-1][:2] == (len(TEXT), len(TEXT))
    assert told[-1][2].endswith(" MB/s")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


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
    monkeypatch.setattr("data.corpus.fetch.time.sleep", naps.append)

    def busy_then_cut(handler: Handler, n: int) -> None:
        if n == 0:
            handler.body(b"", 429, Retry_After="3")
        elif n == 1:
            handler.cut(TEXT, 200_000, False, ETag='"1"')
        else:
            handler.rest(TEXT)

    address = server.route("/a", busy_then_cut)
    ask(tmp_path, address, patience=Patience())
    assert naps[0] == 3.0
    assert 1.0 <= naps[1] <= 1.5  # the usual backoff: 0.5 s doubled, and the jitter


def test_busy_for_ever_is_transient(server: Server, tmp_path: Path) -> None:
    error = refused(tmp_path, server.route("/a", lambda h, _: h.body(b"", 503)))
    assert isinstance(error, TransientError)
    assert "answered with status 503 (Service Unavailable) (4 attempts); check the network" in str(error)
    assert len(server.asked()) == 4


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(
    "version", [{"ETag": '"1"'}, {"Last_Modified": DATE}, {"ETag": 'W/"1"', "Last_Modified": DATE}]
)
def test_a_cut_is_resumed(server: Server, tmp_path: Path, reset: bool, version: dict[str, str]) -> None:
    address = server.route("/a", lambda h, n: h.rest(TEXT, **version) if n else h.cut(TEXT, 200_000, reset, **version))
    assert fetched(tmp_path, address) == TEXT
    first, second = server.asked()
    assert "Range" not in first
    assert second["Range"].startswith("bytes=")
    assert second["Range"] != "bytes=0-"
    assert second["If-Range"] == version.get("Last_Modified", '"1"')
    assert server.sent < 2 * len(TEXT)


@pytest.mark.parametrize("version", [{}, {"ETag": 'W/"1"'}], ids=["none", "weak"])
def test_without_a_version_to_rely_on_a_cut_file_is_begun_again(
    server: Server, tmp_path: Path, version: dict[str, str]
) -> None:
    address = server.route("/a", lambda h, n: h.body(TEXT) if n else h.cut(TEXT[::-1], 200_000, True, **version))
    assert fetched(tmp_path, address) == TEXT
    assert "Range" not in server.asked()[1]


def test_cut_again_and_again(server: Server, tmp_path: Path) -> None:
    def shorter_ranges(handler: Handler, n: int) -> None:
        start = n * 100_000
        if n == 0:
            handler.cut(TEXT, 100_000, False, ETag='"1"')
        else:
            span = f"bytes {start}-{min(start + 100_000, len(TEXT)) - 1}/{len(TEXT)}"
            handler.body(TEXT[start : start + 100_000], 206, Content_Range=span, ETag='"1"')

    assert fetched(tmp_path, server.route("/a", shorter_ranges)) == TEXT
    assert [asked.get("Range") for asked in server.asked()][:3] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_that_ignores_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, n: h.body(TEXT) if n else h.cut(TEXT[::-1], 200_000, True, ETag='"0"'))
    assert fetched(tmp_path, address) == TEXT
    assert "Range" in server.asked()[1]


REST = f"bytes 200000-{len(TEXT) - 1}/{len(TEXT)}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 416},
        {"Content_Range": f"bytes 7-{len(TEXT) - 1}/{len(TEXT)}", "ETag": '"1"'},
        {"Content_Range": "bytes 200000-999999/1000000", "ETag": '"1"'},
        {"ETag": '"1"'},
        {"Content_Range": REST, "ETag": '"2"'},
        {"Content_Range": REST, "ETag": '"1"', "Last_Modified": DATE.replace("21", "22")},
        {"Content_Range": REST},
        {"Content_Range": f"bytes 200000-{len(TEXT)}/{len(TEXT)}", "ETag": '"1"', "body": TEXT[200_000:] + b"x"},
        {"Content_Range": "bytes 200000-200010/*", "ETag": '"1"', "body": TEXT[200_000:]},
        {"Content_Range": REST, "ETag": '"1"', "body": TEXT[200_000:] + b"and more"},
    ],
    ids=[
        *("416", "wrong start", "another length", "no Content-Range", "another ETag", "another date", "no version"),
        *("past its end", "more than its range", "more than its total"),
    ],
)
def test_a_rest_that_does_not_fit_is_dropped_and_the_file_begun_again(
    server: Server, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    def route(handler: Handler, n: int) -> None:
        if n == 0:
            handler.cut(TEXT, 200_000, False, ETag='"1"', Last_Modified=DATE)
        elif n == 1:
            handler.body(**{"body": TEXT[200_000:].upper(), "status": 206, **wrong})
        else:
            handler.body(TEXT)

    assert fetched(tmp_path, server.route("/a", route)) == TEXT
    assert ["Range" in asked for asked in server.asked()] == [False, True, False]


def test_more_than_a_range_was_to_have_is_dropped(server: Server, tmp_path: Path) -> None:
    def route(handler: Handler, n: int) -> None:
        if n == 0:
            handler.cut(TEXT, 200_000, False, ETag='"1"')
        elif n == 1:
            handler.head(206, Content_Range=REST, ETag='"1"', Transfer_Encoding="chunked")
            more = TEXT[200_000:] + b"and more"
            handler.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(more), more))
        else:
            handler.body(TEXT)

    assert fetched(tmp_path, server.route("/a", route)) == TEXT
    assert len(server.asked()) == 3


@pytest.mark.parametrize("after", [0, 200_000])
def test_silence_runs_into_the_timeout(server: Server, tmp_path: Path, after: int) -> None:
    def silent_at_first(handler: Handler, n: int) -> None:
        if n:
            handler.rest(TEXT) if "Range" in handler.headers else handler.body(TEXT)
            return
        if after:
            handler.cut(TEXT, after, False, ETag='"1"')
        time.sleep(0.6)

    assert fetched(tmp_path, server.route("/a", silent_at_first)) == TEXT
    assert len(server.asked()) == 2


def test_silence_for_ever_is_transient(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, _: time.sleep(0.5))
    error = refused(tmp_path, address, patience=Patience(attempts=2, read=0.2, wait=0.01))
    assert isinstance(error, TransientError)
    assert f"{address} sent nothing for 0.2 s (2 attempts)" in str(error)


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_drip_is_broken_off(server: Server, tmp_path: Path, part: str) -> None:
    def drip(handler: Handler, _: int) -> None:
        if part == "body":
            handler.head()  # without a length, so that its end looks like any other
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)

    error = refused(tmp_path, address := server.route("/a", drip), patience=Patience(attempts=1, window=0.2))
    assert isinstance(error, TransientError)
    assert f"{address} sent less than 1,000 bytes a second for 0.2 s" in str(error)


def test_what_comes_for_ever_ends_all_the_same(server: Server, tmp_path: Path) -> None:
    def drip(handler: Handler, _: int) -> None:
        handler.head()
        while True:
            handler.wfile.write(b"x" * 100)
            time.sleep(0.02)

    error = refused(tmp_path, address := server.route("/a", drip), patience=Patience(longest=0.3, window=0.1))
    assert not isinstance(error, TransientError)
    assert f"{address} has not sent all of it in 0 s after" in str(error)
    assert len(server.asked()) == 1


def test_each_attempt_is_announced_in_our_words(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = server.route("/a", lambda h, n: h.body(TEXT) if n else h.body(b"", 503))
    assert fetched(tmp_path, address) == TEXT
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{address} answered with status 503 (Service Unavailable); attempt 2 of 4 in 0.0")


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


def test_an_encoding_that_nobody_asked_for_is_no_text(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, _: h.body(b"Krpgbq.", Content_Encoding="rot, br"))
    assert f"{address} sent the text packed by rot, br, though it was asked for it as it is" in str(
        refused(tmp_path, address)
    )
    assert fetched(tmp_path, server.route("/a", lambda h, _: h.body(TEXT, Content_Encoding="Identity"))) == TEXT


@pytest.mark.parametrize("secret", ["s3cr3t", "s3 cr/3t"])
def test_what_was_asked_with_and_is_said_again_is_not_repeated(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    monkeypatch.setenv("SECRET", secret)
    said = [secret, quote(secret, safe=""), quote(secret)]
    answers = {
        "title": lambda h, _: h.body(f"<html><title>{said}".encode()),
        "scheme": lambda h, _: h.body(b"", 302, Location="s3cr3t://h/"),
        "line": lambda h, _: h.send(f"HTTP/1.1 200 OK\r\n{said}\r\n\r\n".encode()),
    }
    for name, answer in answers.items():
        source = Source("test", (server.route(f"/{name}", answer),), None, None, ("X-Key: ${SECRET}",))
        with pytest.raises(CorpusError) as refusal:
            fetch(source, tmp_path / "raw", lambda *_: None, HASTE, 1 << 30)
        assert not any(one in str(refusal.value) + caplog.text for one in said)
    server.route("/tag?key=s3cr3t", lambda h, _: h.body(TEXT, ETag='"of-s3cr3t"'))
    found = fetch(
        Source("test", (server.route("/tag", answers["line"]) + "?key=s3cr3t",), None, None),
        *(tmp_path / "raw", lambda *_: None, HASTE, 1 << 30),
    )
    assert found
    assert found.etag == ""


def test_a_redirect_from_outside_does_not_lead_inside(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = server.route("/mine", lambda h, _: h.body(TEXT))
    monkeypatch.setenv("HTTP_PROXY", mine.removesuffix("/mine"))
    server.route("http://93.184.215.14/a", lambda h, _: h.body(b"", 302, Location=mine))
    assert f"http://93.184.215.14/a redirects to {mine.removesuffix('/mine')}, which is this machine" in str(
        refused(tmp_path, "http://93.184.215.14/a")
    )
    assert not server.asked("/mine")
    server.route("http://93.184.215.14/b", lambda h, _: h.body(b"", 302, Location="http://93.184.215.14/c"))
    server.route("http://93.184.215.14/c", lambda h, _: h.body(TEXT))
    assert fetched(tmp_path, "http://93.184.215.14/b") == TEXT


def test_a_redirect_does_not_leave_encryption(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = server.route("/a", lambda h, _: h.body(TEXT))
    server.route("/b", lambda h, _: h.body(b"", 302, Location=plain))
    server.route("/c", lambda h, _: h.body(b"", 302, Location="/a"))
    with encrypted(server, tmp_path / "cert.pem") as address:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert fetched(tmp_path, f"{address}/c") == TEXT
        said = str(refused(tmp_path, f"{address}/b"))
        assert f"{address}/b redirects to {plain.removesuffix('/a')}, where anybody on the way can read and" in said


@contextmanager
def encrypted(server: Server, certificate: Path) -> Iterator[str]:
    """A second door to a server, by TLS, and the certificate of who stands there."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    certificate.write_bytes(secret + signed.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with type(server)() as door:
        door.routes = server.routes
        door.socket = context.wrap_socket(door.socket, server_side=True)
        Thread(target=door.serve_forever, args=(0.02,), daemon=True).start()
        yield f"https://127.0.0.1:{door.server_port}"
        door.shutdown()


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


def test_too_large_is_refused_before_it_is_read(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, _: h.head(Content_Length=1001))
    assert "sends more than the 1,000 bytes that a corpus may have" in str(refused(tmp_path, address, limit=1000))
    assert fetched(tmp_path, server.route("/b", lambda h, _: h.body(b"a" * 1000)), limit=1000) == b"a" * 1000


def test_too_large_without_a_length(server: Server, tmp_path: Path) -> None:
    def endless(handler: Handler, _: int) -> None:
        handler.head(Transfer_Encoding="chunked")
        while True:
            handler.send(b"400\r\n%s\r\n" % (b"a" * 0x400))

    assert "more than the 1,000 bytes" in str(refused(tmp_path, server.route("/a", endless), limit=1000))
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
    assert len(server.asked("/good")) == 1
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


def test_unchanged_after_a_busy_moment(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, n: h.body(b"", 503) if n == 1 else h.versioned(TEXT, ETag='"1"'))
    assert ask(tmp_path, address, known=first(tmp_path, address)) is None
    assert len(server.asked()) == 3
    assert (tmp_path / "raw").read_bytes() == b""


def test_a_changed_file_that_breaks_off_is_resumed_without_condition(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, _: h.versioned(b"old", ETag='"0"'))
    before = first(tmp_path, address)
    server.route("/a", lambda h, n: h.rest(TEXT) if n > 1 else h.cut(TEXT, 200_000, False, ETag='"1"'))
    assert fetched(tmp_path, address, known=before) == TEXT
    assert server.conditions()[1:] == [{"If-None-Match": '"0"'}, {}]
    assert server.asked()[2]["If-Range"] == '"1"'


def test_nothing_new_is_no_answer_in_the_middle_of_a_changed_file(server: Server, tmp_path: Path) -> None:
    address = server.route("/a", lambda h, _: h.versioned(b"old", ETag='"0"'))
    before = first(tmp_path, address)
    server.route("/a", lambda h, n: h.head(304) if n > 1 else h.cut(TEXT, 200_000, False, ETag='"1"'))
    with pytest.raises(CorpusError, match=r"304 \(Not Modified\) though it was asked for the file as it is"):
        fetched(tmp_path, address, known=before)


@pytest.mark.parametrize("after", [0, 200_000])
def test_nothing_new_is_no_answer_to_who_has_nothing(server: Server, tmp_path: Path, after: int) -> None:
    def nothing(handler: Handler, n: int) -> None:
        handler.cut(TEXT, after, False) if after and n == 0 else handler.head(304)

    error = refused(tmp_path, address := server.route("/a", nothing))
    assert not isinstance(error, TransientError)
    assert f"{address} answered with status 304 (Not Modified) though it was asked for the file as it is" in str(error)


def test_the_version_of_one_mirror_says_nothing_of_another(server: Server, tmp_path: Path) -> None:
    before = first(tmp_path, server.route("/a", lambda h, _: h.versioned(TEXT, ETag='"1"')))
    other = server.route("/b", lambda h, _: h.versioned(b"another text", ETag='"1"'))
    assert fetched(tmp_path, other, known=before) == b"another text"
    assert server.conditions("/b")[0] == {}

    gone = server.route("/gone", lambda h, _: h.body(b"", 404))
    assert ask(tmp_path, gone, before.address, known=before) is None
    assert server.conditions("/gone")[0] == {}
    assert server.conditions("/a")[-1] == {"If-None-Match": '"1"'}


def test_a_date_says_nothing_of_what_is_there(server: Server, tmp_path: Path) -> None:
    before = first(tmp_path, address := server.route("/a", lambda h, _: h.versioned(b"broken", Last_Modified=DATE)))
    server.route("/a", lambda h, _: h.versioned(TEXT, Last_Modified=DATE))  # the good file is back, with its old date
    assert fetched(tmp_path, address, known=before) == TEXT


def test_behind_a_redirect_a_tag_is_good(server: Server, tmp_path: Path) -> None:
    server.route("/b", lambda h, _: h.versioned(TEXT, ETag='"1"'))
    address = server.route("/a", lambda h, _: h.body(b"", 302, Location="/b"))
    assert ask(tmp_path, address, known=first(tmp_path, address)) is None
    assert server.sent == len(TEXT)


def test_a_version_is_noted_only_of_a_file_that_is_sure_to_be_whole(server: Server, tmp_path: Path) -> None:
    def of_unknown_length(handler: Handler, _: int) -> None:
        handler.head(ETag='"1"', Last_Modified=DATE)
        handler.send(TEXT[:1000])

    assert first(tmp_path, server.route("/a", of_unknown_length)).etag == ""


@pytest.mark.parametrize("tag", ["1", '"caf\xe9"', '"' + "1" * 5000 + '"', '"1" "2"', ""])
def test_a_tag_that_is_none_is_not_sent_back(server: Server, tmp_path: Path, tag: str) -> None:
    address = server.route("/a", lambda h, _: h.versioned(TEXT, ETag=tag))
    assert fetched(tmp_path, address, known=first(tmp_path, address)) == TEXT
    assert server.conditions() == [{}, {}]


# --- what the environment holds


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ALL_PROXY", "socks5://me:secret@127.0.0.1:1", "names a SOCKS proxy, which takes a package more"),
        ("https_proxy", "ftp://me:secret@127.0.0.1:1", "names no proxy that can be used: write http://HOST:PORT"),
        ("HTTP_PROXY", "http://me:secret@127.0.0.1:port", "names no proxy that can be used"),
        ("NO_PROXY", "localhost,[::1]", "holds what is no host"),
        ("no_proxy", "localhost,fe80::/10", "holds what is no host"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(name, value)
    with pytest.raises(CorpusError, match=f"^{name} in the environment {says}") as refusal:
        ask(tmp_path, "http://127.0.0.1:1/a")
    assert "secret" not in str(refusal.value)


def test_certificates_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
    with pytest.raises(CorpusError, match=r"^SSL_CERT_FILE in the environment names certificates that cannot be read"):
        ask(tmp_path, "https://127.0.0.1:1/a")
