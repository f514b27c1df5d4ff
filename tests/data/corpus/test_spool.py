"""What can be read only once can be read again."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data.corpus import catalogue
from data.corpus.catalogue import resolve
from data.errors import CorpusError


@contextmanager
def piped(body: bytes, number: int | None = None) -> Iterator[int]:
    """The number of a pipe that this comes from; a given one is taken for as long."""
    out, into = os.pipe()
    os.write(into, body)
    os.close(into)
    before = os.dup(number) if number is not None else None
    if number is not None:
        os.dup2(out, number)
    try:
        yield out if number is None else number
    finally:
        os.close(out)
        if before is not None and number is not None:
            os.dup2(before, number)
            os.close(before)


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_a_process_substitution_is_read_as_often_as_need_be(folder: str) -> None:
    with piped(b"a text") as number:
        first, second = resolve(f"{folder}/{number}"), resolve(f"{folder}/{number}")
    assert first == second
    assert first.path
    assert first.path.read_bytes() == b"a text"
    assert first.name == f"{folder}/{number}"
    with piped(b"another") as number:
        assert resolve(f"{folder}/{number}").identity != first.identity


def test_standard_input_is_called_so() -> None:
    with piped(b"a text", 0):
        assert resolve("-").name == resolve("/dev/stdin").name == "standard input"
        path = resolve("-").path
    assert path
    assert path.read_bytes() == b"a text"


def test_what_cannot_be_read_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CorpusError, match=r"^/dev/fd/999 cannot be read \(Bad file descriptor\); name a file$"):
        resolve("/dev/fd/999")
    monkeypatch.setattr(catalogue, "MAX_BYTES", 3)
    with piped(b"text") as number, pytest.raises(CorpusError, match="has more than the 3 bytes that a corpus may have"):
        resolve(f"/dev/fd/{number}")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CorpusError, match=r"^standard input is closed; name a file$"):
        resolve("-")


def test_where_there_is_no_room_for_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with piped(b"a text") as number, pytest.raises(CorpusError, match=r"temporary files \(No such .* by TMPDIR$"):
        resolve(f"/dev/fd/{number}")
