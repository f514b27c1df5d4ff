"""What the user's cache remembers of a file, and when it does not believe that."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from data.store import cache, fingerprint

LONG_AGO = time.time() - 3600


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rnnlm"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that was left alone for long, by a clock that is an hour ahead."""
    path = tmp_path / "file"
    path.write_text("one", encoding="utf-8")
    monkeypatch.setattr(time, "time_ns", lambda clock=time.time_ns: clock() + 3600 * 10**9)
    return path


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def reads(path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the digest of a file costs to read it."""
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)
        try:
            cache.digest(path)
        except TypeError:
            return True
    return False


def test_a_file_that_was_left_alone_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.digest(file) == sha256("one")
    assert not reads(file, monkeypatch)
    assert cache.digest(file) == sha256("one")


def test_a_young_file_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change once more within the tick of a clock, and look the same."""
    (tmp_path / "file").write_text("one", encoding="utf-8")
    cache.digest(tmp_path / "file")
    assert reads(tmp_path / "file", monkeypatch)


def test_what_was_changed_under_the_same_size_and_time_is_seen(file: Path) -> None:
    cache.digest(file)
    times = file.stat()
    file.write_text("two", encoding="utf-8")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cache.digest(file) == sha256("two")


def test_what_was_put_in_its_place_is_seen(file: Path, tmp_path: Path) -> None:
    cache.digest(file)
    other = tmp_path / "other"
    other.write_text("two", encoding="utf-8")
    os.utime(other, ns=(0, file.stat().st_mtime_ns))
    other.replace(file)
    assert cache.digest(file) == sha256("two")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"[]", b"[1]", b'"text"', b"\xff", b"[[0], 1]", b"3", b"{}"]
)
def test_a_cache_that_says_nothing_sensible_is_not_believed(file: Path, place: Path, content: bytes) -> None:
    cache.digest(file)
    (entry,) = (place / "files").iterdir()
    entry.write_bytes(content)
    assert cache.digest(file) == sha256("one")


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    file: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.parent.write_text("a file", encoding="utf-8")
    assert cache.digest(file) == sha256("one")
    assert reads(file, monkeypatch)
    cache.sweep(time.time())


def test_what_is_old_is_swept(file: Path, place: Path) -> None:
    cache.digest(file)
    cache.put("code", "new", 1)
    (entry,) = (place / "files").iterdir()
    os.utime(entry, (LONG_AGO, LONG_AGO))
    cache.sweep(LONG_AGO + 60)
    assert [path.name for path in place.rglob("*") if path.is_file()] == ["new"]


def test_a_source_that_was_read_before_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprint._contents.cache_clear()  # another test may have read it while the cache was elsewhere
    before = fingerprint.code("data.moment")
    fingerprint._contents.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr("data.store.syntax.read", None)
        assert fingerprint.code("data.moment") == before


def test_a_digest_of_code_that_is_none_is_not_believed(place: Path) -> None:
    fingerprint._contents.cache_clear()
    before = fingerprint.code("data.moment")
    fingerprint._contents.cache_clear()
    for entry in (place / "code").iterdir():
        entry.write_bytes(b"[3]")
    assert fingerprint.code("data.moment") == before
