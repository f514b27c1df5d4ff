"""A text that is read where it lies: the same lines, and the same sentences, as of one that is copied first."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from data.corpus import catalogue, spool
from data.errors import CorpusError
from stages.cli.models import text_of
from stages.scoring import texts
from stages.scoring.plain import plain

MARK = codecs.BOM_UTF8
SMALL = (
    *(b"a", b"a\n", b"a\r", b"\ra", b"\na", b"a\r\n\r\n\r\r\nb", b"a\n\r\nb\r", b"a\n\r", b"a\n\n\n", b"a\rb\nc\r\nd"),
    "\r\n é \r\n😀\n\U0010ffff\r\ne\u0301\u0301".encode(),
    "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\n\x1a\x1b[31m".encode(),
    *(b"\n<p>", b"PK\n", b"BZh9 is no archive"),
    *(MARK + b"a\nb", b"a\n" + MARK + b"b\n" + MARK, MARK + MARK + b"a", MARK + b"\r\na"),
)
BROKEN = (
    *(b"", b" ", b"\n", b"\r\n \t\r", MARK, MARK + b"\n", MARK[:2]),
    *(b"\xe9t\xe9\n", b"a\nb\xff", b"a\n\xc3", b"ab\0c\n", b"a\r\n\xed\xa0\x80", "\ufeffa\n".encode("utf-16")),
)
MANY = spool.CHUNK // 1_000
LARGE = (
    b"a" * (spool.CHUNK - 1) + b"\r\n\r\n" + "é".encode(),
    b"a" + "é".encode() * spool.CHUNK,
    (b" " * 998 + b"\r\n") * 2 * MANY + b"a",
    (b"a" * 999 + b"\n") * MANY + b"a\xff\n" + "é\n".encode() * 300,
    ("été" * 333 + "\n").encode("cp1252") * 2 * MANY,
    b"a" * spool.CHUNK + b"\0",
    b"a" * 40_000 + "é".encode() * 5_000 + b"a" * 30_000 + b"\xe9t\xe9 " * 100,  # most of it is, of what stands around
    (b" " * 999 + b"\n") * 2 * MANY,
)


@contextmanager
def piped(text: bytes, at_once: int = 9_000) -> Iterator[str]:
    """The name of an open file from which this can be read once, as it is written."""
    out, into = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(into, "wb", buffering=0) as pipe:
            for start in range(0, len(text), at_once):
                pipe.write(text[start : start + at_once])

    writer = threading.Thread(target=write)
    writer.start()
    yield f"/dev/fd/{out}"
    os.close(out)
    writer.join()


def said(read: Callable[[str], Iterable[texts.Entry]], name: str) -> list[texts.Entry] | str:
    """The lines, or why there are none; a pipe's number is no part of that."""
    try:
        return [*read(name)]
    except CorpusError as error:
        return str(error).replace(name, "NAME")


def copied(name: str) -> Iterator[texts.Entry]:
    with text_of(name, lambda *_: None) as folder:
        yield from texts.entries(folder, name, "line")


def passing(name: str) -> Iterator[texts.Entry]:
    found = plain(name)
    assert found
    yield from texts.lines(name, found.chunks)


@pytest.mark.parametrize("text", [*SMALL, *BROKEN, *LARGE], ids=lambda text: repr(text[:20]))
def test_what_is_read_where_it_lies_has_the_lines_of_what_is_copied(
    text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, path = os.read, tmp_path / "text"
    path.write_bytes(text)
    expected = said(copied, str(path))
    assert said(passing, str(path)) == expected
    monkeypatch.setattr(os, "read", lambda number, size: read(number, min(size, 9_000)))
    assert isinstance(expected, str) == (text in BROKEN or text in LARGE[3:])
    with piped(text) as name:
        assert said(passing, name) == expected
    with path.open("rb") as file:
        assert said(passing, f"/dev/fd/{file.fileno()}") == expected


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_where_chunks_end_never_shows(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    for text in SMALL:
        path.write_bytes(text)
        expected = said(copied, str(path))
        with monkeypatch.context() as patch:
            patch.setattr(catalogue, "CHUNK", size)
            patch.setattr(spool, "CHUNK", size)
            assert said(passing, str(path)) == expected
            with piped(text, 2) as name:
                assert said(passing, name) == expected


def test_nothing_has_to_fit_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "MAX_BYTES", 9)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    path = tmp_path / "text"
    path.write_bytes(b"the sea\n" * 9)
    for name in (str(path), path.as_uri()):
        assert [entry.text for entry in passing(name)] == ["the sea"] * 9
    with piped(path.read_bytes()) as name:
        assert [entry.number for entry in passing(name)] == [*range(1, 10)]


def test_lines_come_as_they_are_written() -> None:
    out, into = os.pipe()
    some = b"the sea\n" * (spool.CHUNK // 8)
    writer = threading.Thread(target=os.write, args=(into, some))
    writer.start()
    entries = passing(f"/dev/fd/{out}")
    assert next(entries) == (1, None, "the sea")  # and nobody has closed it
    writer.join()
    os.write(into, b"two birds")
    os.close(into)
    assert [*entries][-1] == (len(some) // 8 + 1, None, "two birds")
    os.close(out)


def test_what_is_no_plain_text_goes_the_other_way(tmp_path: Path) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    packed = gzip.compress(b"the sea\ntwo birds")
    for name, content in (("text", packed), ("a.tar", tar.getvalue()), ("a.csv", b"text\na"), ("a.URLS", b"file")):
        (tmp_path / name).write_bytes(content)
        assert plain(str(tmp_path / name)) is None
    for other in (tmp_path, tmp_path / "not there", tmp_path / "*", "sample", "https://a.test/b", "/dev/null", "a\0"):
        assert plain(str(other)) is None
    with piped(packed) as name:
        assert plain(name) is None
        assert [entry.text for entry in copied(name)] == ["the sea", "two birds"]
        assert plain(name) is None
