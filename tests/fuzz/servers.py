"""A command of its own: servers that lie, drip, never end, lead astray or tell what they were told, as a corpus.

    .venv/bin/python tests/fuzz/servers.py [--seed S] [--cases N] [--processes N] [--only WORD] [--sentences]

A real server on loopback sends the bytes of each answer as they stand here. What comes of it is looked at as in
`downloads.Place`; and whatever is sent, the secret that it was asked with is found nowhere. The
suite runs a few of them.
"""

from __future__ import annotations

import bz2
import gzip
import itertools
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from data.corpus.fetch import Patience
from stages import download
from tests.fuzz.answers import (
    OTHER,
    TEXT,
    Case,
    chunked,
    endlessly,
    head,
    in_turn,
    led,
    ranged,
    says,
    serving,
    told,
    whole,
)
from tests.fuzz.downloads import LIMIT, SECRET, Place, arguments

HASTE = Patience(attempts=3, connect=2, read=1.0, pace=1000, window=1.0, wait=0.01, wait_max=0.05)


def lengths() -> Iterator[Case]:
    good = says(whole(TEXT, 'ETag: "1"'))
    n = len(TEXT)
    yield Case("a good answer", good, TEXT)
    yield Case("no length", says(head() + TEXT), TEXT)
    yield Case("chunks", says(head("200 OK", "Transfer-Encoding: chunked") + chunked(TEXT[:100], TEXT[100:])), TEXT)
    yield Case("HTTP/1.0", says(b"HTTP/1.0 200 OK\r\n\r\n" + TEXT), TEXT)
    yield Case("too long a length", says(head("200 OK", f"Content-Length: {n + 5}") + TEXT), None, said="broke off")
    for length in (
        "-1",
        "-0",
        "+5",
        " ",
        "1e3",
        "0x10",
        "9" * 19,
        "9" * 30,
        "9" * 5000,
        "1, 2",
        "5;5",
        "٣",
        "nan",
        f"{n}\r\nContent-Length: 7",
    ):
        name = f"the length {length[:20]!r}"
        yield Case(name, says(head("200 OK", f"Content-Length: {length}") + TEXT), None, said="127.0.0.1")
    yield Case("a length twice", says(head("200 OK", f"Content-Length: {n}", f"Content-Length: {n}") + TEXT), TEXT)
    yield Case(
        "a length and chunks",
        says(head("200 OK", "Content-Length: 3", "Transfer-Encoding: chunked") + chunked(TEXT)),
        TEXT,
        either=True,
    )
    yield Case("a length of nothing", says(whole(b"")), None, said="sent an empty body")
    yield Case("chunks that are cut", says(head("200 OK", "Transfer-Encoding: chunked") + chunked(TEXT)[:-9]), None)
    yield Case("chunks without an end", says(head("200 OK", "Transfer-Encoding: chunked") + chunked(TEXT)[:-5]), None)
    for size in ("-5", "ffffffffffffffff", "f" * 100, "zz", "", "5 ;" + "x" * 100_000, "1_0"):
        broken = head("200 OK", "Transfer-Encoding: chunked") + f"{size}\r\n".encode() + TEXT
        yield Case(f"a chunk of {size[:20]!r}", says(broken), None)
    for coding in ("gzip", "chunked, chunked", "identity", "gzip, chunked", "x" * 1000):
        yield Case(
            f"transfer coding {coding[:20]}",
            says(head("200 OK", f"Transfer-Encoding: {coding}") + TEXT),
            None,
            either=True,
        )
    yield Case(
        "a length of too much", says(head("200 OK", f"Content-Length: {LIMIT + 1}")), None, said="sends more than"
    )
    yield Case("too much without a length", endlessly(head(), TEXT * 10), None, said="sends more than")
    yield Case(
        "too much in chunks",
        endlessly(head("200 OK", "Transfer-Encoding: chunked"), chunked(TEXT)[:-5]),
        None,
        said="sends more than",
    )
    yield Case(
        "a cut, and then too much",
        in_turn(says(head("200 OK", 'ETag: "1"', "Content-Length: 99999") + TEXT[:9999]), endlessly(head(), TEXT)),
        None,
    )


def slow() -> Iterator[Case]:
    yield Case("nothing at all", says(30.0), None)
    yield Case("not even an answer", says(b""), None)
    yield Case("a head that drips", endlessly(b"HTTP/1.1 200 OK\r\nA: ", b"a", 0.2), None, said="bytes a second")
    yield Case(
        "a body that drips", endlessly(head("200 OK", "Content-Length: 99999"), b"a", 0.2), None, said="bytes a second"
    )
    yield Case("a body of no length that drips", endlessly(head(), b"a", 0.2), None, said="bytes a second")
    yield Case(
        "chunks that drip",
        endlessly(head("200 OK", "Transfer-Encoding: chunked"), b"1\r\na\r\n", 0.2),
        None,
        said="bytes a second",
    )
    yield Case("half a chunk that drips", endlessly(head("200 OK", "Transfer-Encoding: chunked"), b"0", 0.2), None)
    yield Case("endless interim answers", endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), None)
    yield Case("early hints that drip", endlessly(b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n", 0.2), None)
    yield Case("endless headers", endlessly(b"HTTP/1.1 200 OK\r\n", b"A: a\r\n"), None)
    yield Case("an endless header", endlessly(b"HTTP/1.1 200 OK\r\nA: ", b"a" * 1000), None)
    yield Case(
        "endless trailers",
        endlessly(head("200 OK", "Transfer-Encoding: chunked") + chunked(TEXT)[:-2], b"A: a\r\n"),
        None,
    )
    yield Case("a cut each time", in_turn(*[ranged()] * 9), None, either=True)
    yield Case("a slow begin", says(0.5, whole(TEXT)), TEXT)


def ranges() -> Iterator[Case]:
    n, half = len(TEXT), len(TEXT) // 2
    yield Case("the rest", ranged('ETag: "1"'), TEXT)
    yield Case("the rest of another version", ranged('ETag: "2"'), None, either=True)
    yield Case("the rest, of no version", ranged(), None)
    for span in (
        *(f"bytes 0-{n - 1}/{n}", f"bytes {half}-{n}/{n}", f"bytes {half}-{n - 1}/{n + 1}", f"bytes {half}-{n - 1}/*"),
        *(f"bytes {half + 1}-{n - 1}/{n}", f"bytes -{half}-{n}/{n}", f"bytes {half}-{half - 1}/{n}", "bytes */9", ""),
        *(
            f"bytes {half}-{10**18}/{10**18 + 1}",
            f"bytes {half}-{'9' * 5000}/{'9' * 5000}",
            "lines 1-2/3",
            f"bytes {half}-{n - 1}",
        ),
        *(
            f"BYTES {half}-{n - 1}/{n}",
            f"bytes {half}-{n - 1}/{n}, bytes 0-1/2",
            "bytes ٣-٤/٥",
            f"bytes {half} - {n - 1} / {n}",
        ),
    ):
        yield Case(f"the range {span[:30]!r}", ranged('ETag: "1"', span=span), lambda found: found == TEXT, either=True)
    yield Case("a range that is too short", ranged('ETag: "1"', body=TEXT[half : half + 9]), None, either=True)
    yield Case("a range that is too long", ranged('ETag: "1"', body=TEXT[half:] + b"more"), None)
    yield Case("a range of nothing", ranged('ETag: "1"', body=b""), None)
    parts = b"--x\r\nContent-Range: bytes 0-1/9\r\n\r\nab\r\n--x--\r\n"
    yield Case(
        "several ranges",
        ranged('ETag: "1"', "Content-Type: multipart/byteranges; boundary=x", span="", body=parts),
        None,
    )
    yield Case(
        "a range nobody asked for",
        says(whole(TEXT, f"Content-Range: bytes 0-{n - 1}/{n}", status="206 Partial Content")),
        None,
    )
    yield Case(
        "no such range", ranged('ETag: "1"', span=f"bytes */{n}", status="416 Range Not Satisfiable"), None, either=True
    )
    yield Case("no such range, ever", says(head("416 Range Not Satisfiable", "Content-Range: bytes */0")), None)
    other = in_turn(ranged(), says(whole(OTHER, 'ETag: "2"')))
    yield Case("changed meanwhile", other, OTHER)
    again = says(head("200 OK", 'ETag: "2"', f"Content-Length: {n}") + OTHER[:half])
    yield Case("changed each time", in_turn(ranged(), again, ranged('ETag: "3"')), None, either=True)
    date = "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT"
    cut = says(head("200 OK", date, f"Content-Length: {n}") + TEXT[:half])
    rest = says(
        whole(
            TEXT[half:],
            date.replace("21", "22"),
            f"Content-Range: bytes {half}-{n - 1}/{n}",
            status="206 Partial Content",
        )
    )
    yield Case("a rest of another day", in_turn(cut, rest, says(whole(TEXT))), TEXT)
    yield Case("not modified, to whoever has nothing", says(head("304 Not Modified")), None, said="304")
    yield Case("not modified, in the middle", in_turn(cut, says(head("304 Not Modified"))), None)


def redirects(port: int) -> Iterator[Case]:
    here = f"http://127.0.0.1:{port}"
    yield Case("a loop", led("/a"), None, said="leads nowhere")
    grows = told(lambda asked: head("302 Found", f"Location: {asked.split()[0]}x", "Content-Length: 0"))
    yield Case("a loop that grows", grows, None, said="leads nowhere")
    for status in (
        "300 Multiple Choices",
        "301 Moved",
        "303 See Other",
        "305 Use Proxy",
        "306 -",
        "307 T",
        "308 P",
        "309 -",
    ):
        yield Case(f"{status[:3]} to the text", in_turn(led("/b", status), says(whole(TEXT))), TEXT, either=True)
        yield Case(f"{status[:3]} to nowhere", says(head(status, "Content-Length: 0")), None)
    for place in (
        *(
            "file:///etc/passwd",
            "ftp://127.0.0.1/a",
            "data:text/plain,a text",
            "gopher://127.0.0.1:70/_a",
            "javascript:a",
            "about:blank",
        ),
        *(
            "unix:/var/run/docker.sock",
            "http+unix://%2Fvar%2Frun/a",
            "ws://127.0.0.1/a",
            "s3://b/a",
            "//",
            "///",
            "http://",
            "http:///etc",
        ),
        *(
            "http://[::1",
            "http://[::ffff:127.0.0.1]:1/",
            "http://h:99999/",
            "http://h:x/",
            "http://\x01/",
            "http://%zz/",
            "http://a b/",
        ),
        *(
            "http://" + "a" * 300,
            "http://" + "a." * 150,
            "/" + "x" * 70_000,
            "http://xn--a/",
            "http://exa\u2028mple/",
            "http://\u202e/",
        ),
        *(
            "http://..",
            "http://.",
            "http://u:p@:80",
            "http://127.0.0.1:1/",
            "http://0/",
            "http://0x7f.1:1/",
            "\x1b[2J",
            "",
            "?",
            "#",
            "\\",
        ),
        *(
            "http://1.2.3.4.5:1/",
            "http://256.256.256.256/",
            "http://[fe80::1%25lo]:1/",
            "http://[v1.a]/",
            "http:a",
            "HTTP://[::1]:1/",
        ),
    ):
        yield Case(f"led to {place[:30]!r}", led(place), None)
    yield Case(
        "led in two lines", says(head("302 Found", "Location: /a", f"Location: {here}/b", "Content-Length: 0")), None
    )
    yield Case("led with a body without end", endlessly(head("302 Found", "Location: /a"), TEXT), None)
    cookies = says(
        head(
            "302 Found",
            "Location: /b",
            "Set-Cookie: a=b; Domain=.; Expires=x",
            "Set-Cookie: \xff=;;;=",
            "Content-Length: 0",
        )
    )
    yield Case("cookies", in_turn(cookies, says(whole(TEXT, "Set-Cookie: " + "a" * 9000))), TEXT, either=True)


def codings() -> Iterator[Case]:
    packed, twice = gzip.compress(TEXT, mtime=0), gzip.compress(gzip.compress(TEXT, mtime=0))
    bomb = gzip.compress(bytes(LIMIT + 1))
    yield Case("packed by gzip", says(whole(packed, "Content-Encoding: gzip")), TEXT)
    yield Case("packed by gzip twice", says(whole(twice, "Content-Encoding: gzip, gzip")), None)
    yield Case("a bomb", says(whole(bomb, "Content-Encoding: gzip")), None, said="unpacks to more than")
    yield Case("a bomb, twice", says(whole(gzip.compress(bomb), "Content-Encoding: gzip, gzip")), None)
    yield Case("packed by bzip2", says(whole(bz2.compress(TEXT))), TEXT)
    yield Case("said to be gzip", says(whole(TEXT, "Content-Encoding: gzip")), TEXT, either=True)
    brotli = b"\x0b\x02\x80a text\x03"
    for coding in ("br", "deflate", "compress", "zstd, br", "x" * 1000, "\x1b[2J"):
        for body in (brotli, zlib.compress(TEXT), b"Krpgbq, vtf, rtt."):
            yield Case(f"packed by {coding[:9]!r}", says(whole(body, f"Content-Encoding: {coding}")), None)
    yield Case("packed by identity", says(whole(TEXT, "Content-Encoding: identity")), TEXT)


def heads() -> Iterator[Case]:
    """Status lines and headers of all kinds."""
    for status in (
        0,
        7,
        99,
        100,
        101,
        102,
        103,
        199,
        201,
        202,
        203,
        204,
        205,
        207,
        226,
        299,
        399,
        400,
        401,
        402,
        403,
        404,
    ):
        yield Case(f"status {status}", says(whole(TEXT, status=f"{status} Somehow")), None)
    for status in (
        407,
        408,
        410,
        418,
        421,
        429,
        431,
        451,
        499,
        500,
        501,
        502,
        503,
        504,
        505,
        511,
        599,
        600,
        999,
        1000,
        99999,
    ):
        yield Case(f"status {status}", says(whole(TEXT, "Retry-After: 99999999", status=f"{status} Somehow")), None)
    for reason in ("\x1b[2J\x1b]0;owned\x07", "\u202e", "\x00", "x" * 70_000, "", "\xff\xfe", "a\rb", SECRET):
        yield Case(f"the reason {reason[:9]!r}", says(whole(TEXT, status=f"404 {reason}")), None)
        yield Case(f"200 {reason[:9]!r}", says(whole(TEXT, status=f"200 {reason}")), TEXT, either=True)
    for first in (
        "HTTP/0.9 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/1.1",
        "HTTP/1.1 2xx OK",
        "ICY 200 OK",
        "",
        "\x1b[2J",
        "SSH-2.0-OpenSSH",
        "HTTP/1.1 ٢٠٠ OK",
    ):
        yield Case(
            f"the first line {first!r}", says(f"{first}\r\nContent-Length: 3\r\n\r\nabc".encode()), b"abc", either=True
        )
    yield Case("no head", says(TEXT), None)
    yield Case("a head of newlines", says(b"\r\n" * 100_000), None)
    yield Case("only newlines in the head", says(whole(TEXT).replace(b"\r\n", b"\n")), TEXT, either=True)
    for line in (
        *(
            "\x1b[2J: a",
            "A: \x1b[2J",
            "A",
            ": a",
            "A : a",
            " A: a",
            "A: a\x00b",
            "A: \u202e",
            "A: " + "a" * 200_000,
            "a" * 200_000 + ": A",
        ),
        *(
            "Content-Type: \x1b[2J",
            "Content-Type: text/plain; charset=utf-16",
            "Content-Disposition: attachment; filename=../../a",
        ),
        *(
            'ETag: "\x1b[2J"',
            "ETag: " + '"' + "e" * 9000 + '"',
            "ETag: \u202e",
            'ETag: W/"',
            "Last-Modified: \x1b[2J",
            "Last-Modified: never",
        ),
        *(
            "Retry-After: x",
            "Set-Cookie: \x1b[2J",
            "Age: -1",
            "Trailer: x",
            "Upgrade: h2c",
            "Alt-Svc: h3",
            "Link: <a>; rel=next",
            "A: \udcff",
        ),
    ):
        yield Case(f"the header {line[:20]!r}", says(whole(TEXT, line)), TEXT, either=True)
    yield Case("many headers", says(whole(TEXT, *[f"A{number}: a" for number in range(20_000)])), TEXT, either=True)
    for title in (
        "\x1b[2J\x1b]0;owned\x07",
        "\u202e",
        "&#27;[2J&#x202e;",
        "<b>bold</b>",
        "x" * 9000,
        "a\nb",
        "\ud83d".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    ):
        page = f"<!DOCTYPE html><title>{title}</title><p>Sign in".encode()
        yield Case(
            f"a page titled {title[:12]!r}", says(whole(page, "Content-Type: text/html")), None, said="HTML page"
        )


def broken(rng: Random) -> Iterator[Case]:
    """What chance makes of a head."""
    while True:
        sent = bytearray(whole(TEXT, 'ETag: "1"', "Content-Type: text/plain"))
        for _ in range(rng.randint(1, 4)):
            sent[rng.randrange(90)] = rng.randrange(256)
        yield Case("a head with bytes exchanged", says(bytes(sent)), lambda found: found[-9:] in TEXT, either=True)
        yield Case("random bytes", says(rng.randbytes(rng.choice((1, 100, 100_000)))), None)


def secrets() -> Iterator[Case]:
    """What is asked with is told back, in all that is ever written of an answer."""

    def page(asked: str) -> bytes:
        return whole(f"<html><title>Sign in for {asked}</title>".encode(), "Content-Type: text/html")

    yield Case("told in a title", told(page), None)
    yield Case("told in a status", told(lambda asked: whole(b"", status=f"404 {asked}")), None)
    yield Case(
        "told in a location", told(lambda asked: head("302 Found", f"Location: http://{asked.split()[-1]}.h:x/")), None
    )
    yield Case(
        "told in a host",
        told(lambda asked: head("302 Found", f"Location: http://{SECRET}.localhost:1/{asked.split()[0]}")),
        None,
    )
    yield Case("told in a scheme", told(lambda asked: head("302 Found", f"Location: {SECRET}://h/")), None)
    yield Case("told in a header that is none", told(lambda asked: head("200 OK", f"{asked} x")), None)
    yield Case("told in a first line", told(lambda asked: f"{asked}\r\n\r\n".encode()), None)
    yield Case("told in a length", told(lambda asked: head("200 OK", f"Content-Length: {asked}")), None)
    yield Case(
        "told in a chunk",
        told(lambda asked: head("200 OK", "Transfer-Encoding: chunked") + asked.encode() + b"\r\n"),
        None,
    )
    yield Case("told in a coding", told(lambda asked: whole(TEXT, f"Content-Encoding: {SECRET}")), None)
    yield Case("told in a tag", told(lambda asked: whole(TEXT, f'ETag: "{SECRET}"')), TEXT)
    yield Case("told in a date", told(lambda asked: whole(TEXT, f"Last-Modified: {SECRET}")), TEXT)
    yield Case("told in a cookie", told(lambda asked: whole(TEXT, f"Set-Cookie: a={SECRET}")), TEXT)


def run(place: Place, rng: Random, number: int, share: float = 1.0, only: str = "") -> None:
    """Try a share of all answers, and so many heads that chance has broken."""
    place.prepare = hasty
    kinds = {
        **{"lengths": lengths(), "slow": slow(), "ranges": ranges(), "codings": codings(), "secrets": secrets()},
        **{"heads": heads(), "broken heads": itertools.islice(broken(rng), number)},
    }
    with serving() as (port, answers):
        for kind, cases in (*kinds.items(), ("redirects", redirects(port))):
            for case in cases:
                what = f"{kind}: {case.what}"
                if only not in what or rng.random() >= share or (place.real and kind == "slow"):
                    continue
                answers.append(case.answer)
                address = f"http://127.0.0.1:{port}/a?part=1&token=${{SECRET}}"
                headers = ("--set", 'download.headers=["Authorization: Bearer ${SECRET}"]')
                place.attempt(what, address, case.text, *headers, either=case.either, said=case.said)
                place.forget()
        answers.append(says(whole(TEXT)))
        for what, address, text in (
            ("asks TLS of who has none", f"https://127.0.0.1:{port}/a", None),
            ("nobody there", "http://127.0.0.1:1/a", None),
            ("a password in the address", f"http://u:{SECRET}@127.0.0.1:{port}/a", None),
            ("a name in the address", f"http://{SECRET}@127.0.0.1:{port}/a", None),
            ("a password in an address that is none", f"http://u:{SECRET}@[::1/a?token={SECRET}", None),
            ("a secret in the query", f"http://127.0.0.1:{port}/a?part=1&token={SECRET}", TEXT),
        ):
            if only in what and rng.random() < share:
                place.attempt(what, address, text)
                place.forget()


def hasty() -> None:
    """Shorter waits than a user has."""
    defaults = download.obtain.__kwdefaults__
    assert defaults is not None
    defaults["patience"] = HASTE


def main() -> None:
    """Print what failed, and counts."""
    asked = arguments()
    rng, began = Random(asked.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        run(place, rng, asked.cases, only=asked.only)
        place.real = True
        run(place, rng, asked.processes // 4, min(asked.processes / 400, 1), only=asked.only)
    code = place.summary(asked.sentences)
    print(f"seed {asked.seed}, {time.monotonic() - began:.0f} s")
    sys.exit(code)


if __name__ == "__main__":
    main()
