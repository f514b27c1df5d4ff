"""The files of a folder and of a pattern: which, in which order, what is refused, and what is read again."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import socket
import time
from pathlib import Path

import pytest

from data.documents import files as module
from data.documents.files import Files, spelt
from data.errors import CorpusError

TREE = [
    *("a/x.txt", "a/y.md", "a-b.txt", "a.txt", "a/deep/er/z.txt", "B.TXT", "é.txt", "no suffix", "log.2024-01-01"),
    *(".hidden.txt", ".git/config", "a/.x/y.txt", "picture.PNG", "a/film.mp4", "x.tar.gz", "ab/c"),
]
TAKEN = ["B.TXT", "a-b.txt", "a.txt", "a/deep/er/z.txt", "a/x.txt", "a/y.md", "ab/c"]
TAKEN += ["log.2024-01-01", "no suffix", "x.tar.gz", "é.txt"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    for name in TREE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def found(path: Path | str) -> list[str]:
    """The names that are taken."""
    return [name for what, name, _ in Files.of(str(path), Path(path)).walk() if what == "file"]


def identity(path: Path | str, most: int = 1 << 30) -> str:
    return Files.of("notes", Path(path)).identity(most, lambda one: hashlib.sha256(one.read_bytes()).hexdigest())


def test_a_folder_is_its_files_by_the_bytes_of_their_names(tree: Path) -> None:
    assert found(tree) == TAKEN == sorted(TAKEN, key=os.fsencode)
    left_out = [name for what, name, _ in Files.of("notes", tree).walk() if what == "no text"]
    assert left_out == ["a/film.mp4", "picture.PNG"]


@pytest.mark.parametrize(
    "pattern", ["*.txt", "**/*.txt", "a/*", "*/**/*.txt", "**", "a*/x.t?t", "**/deep/**/*", ".*", "**/[B-b]*", "*.png"]
)
def test_a_pattern_means_what_a_shell_means_by_it(tree: Path, pattern: str) -> None:
    there = [Path(path) for path in glob.glob(f"{tree}/{pattern}", recursive=True)]  # noqa: PTH207 (an independent one)
    expected = sorted({str(path.relative_to(tree)) for path in there if path.is_file()}, key=os.fsencode)
    start = Files.of("it", tree / pattern).root.relative_to(tree)
    assert [str(start / name) for name in found(tree / pattern)] == expected


def test_links_are_followed_to_files_below_the_folder_only(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    targets = {"inside": "a/x.txt", "outside": "../secret.txt", "absolute": "/etc/passwd", "loop": ".", "up": ".."}
    targets |= {"itself": "itself", "nowhere": "nothing", "folder": "a", "prefix": "../notes2/x"}
    (tmp_path / "notes2").mkdir()
    (tmp_path / "notes2" / "x").write_text("x", encoding="utf-8")
    for name, target in targets.items():
        (tree / name).symlink_to(target)
    assert sorted({*found(tree)} - {*TAKEN}) == ["inside"]
    (tmp_path / "link").symlink_to("notes")
    assert found(tmp_path / "link") == found(tree)


def test_what_is_no_file_is_refused_by_its_name(tree: Path) -> None:
    os.mkfifo(tree / "a" / "pipe\x1b")
    with pytest.raises(CorpusError, match=r"^'a/pipe\\x1b' of the corpus '.*' is a pipe, a socket or a device and no"):
        found(tree)
    assert found(tree / "*.txt") == ["a-b.txt", "a.txt", "é.txt"]
    (tree / "a" / "pipe\x1b").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fsencode(tree / "s"))
        with pytest.raises(CorpusError, match="'s' of the corpus"):
            found(tree)


def test_the_identity_is_of_names_and_contents_and_of_what_is_taken(tree: Path) -> None:
    before = identity(tree)
    assert identity(tree) == before
    (tree / "picture.PNG").write_text("another", encoding="utf-8")
    (tree / ".hidden.txt").unlink()
    assert identity(tree) == before
    (tree / "a.txt").rename(tree / "c.txt")
    renamed = identity(tree)
    (tree / "c.txt").rename(tree / "a.txt")
    (tree / "a.txt").write_text("b.txt", encoding="utf-8")
    edited = identity(tree)
    (tree / "a" / "y.md").unlink()
    assert len({before, renamed, edited, identity(tree)}) == 4


def test_what_has_not_changed_is_not_read_again(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(time, "time_ns", lambda clock=time.time_ns: clock() + 3600 * 10**9)
    read: list[str] = []

    def again() -> list[str]:
        read.clear()

        def digest(path: Path) -> str:
            read.append(str(path.relative_to(tree)))
            return hashlib.sha256(path.read_bytes()).hexdigest()

        Files.of("notes", tree).identity(1 << 30, digest)
        return list(read)

    assert again() == TAKEN
    assert again() == []
    (tree / "a.txt").write_text("more", encoding="utf-8")
    (tree / "a" / "new.txt").write_text("new", encoding="utf-8")
    (tree / "B.TXT").unlink()
    assert again() == ["a.txt", "a/new.txt"]
    assert again() == []
    (tree / "zz.txt").write_text("last", encoding="utf-8")
    assert again() == ["zz.txt"]
    (tree / "zz.txt").unlink()
    assert again() == []
    (entry,) = (tmp_path / "cache" / "rnnlm" / "folders").iterdir()
    assert entry.read_text(encoding="utf-8").count("\n") == len(TAKEN)
    for damaged in (b"[]\n{}\n", entry.read_bytes()[:-40], b'["a.txt", [1], "0"]\n' + entry.read_bytes()):
        entry.write_bytes(damaged)
        known = again()
        assert again() == [], known


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("empty", "^the folder 'notes' has no file to read; name one that has$"),
        (
            "pictures",
            r"no file to read, but for what by its suffix is no text \(1\) and links that lead away \(1\)",
        ),
        ("empty/*.txt", r"^no file is called as 'notes' says; in quotes, \*\* stands for any folders below$"),
    ],
)
def test_nothing_to_read(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_text("x", encoding="utf-8")
    (tmp_path / "pictures" / "away").symlink_to("/etc/passwd")
    with pytest.raises(CorpusError, match=says):
        identity(tmp_path / name)


def test_more_bytes_than_a_corpus_may_have(tree: Path) -> None:
    with pytest.raises(CorpusError, match="the files of 'notes' have more than the 20 bytes that a corpus may have"):
        identity(tree, 20)


def test_a_file_that_goes_while_it_is_looked_at_is_an_error_and_no_traceback(tree: Path) -> None:
    def gone(path: Path) -> str:
        path.unlink()
        return hashlib.sha256(path.read_bytes()).hexdigest()

    with pytest.raises(CorpusError, match=r"'B\.TXT' of the corpus 'notes' changed while it was read; run again once"):
        Files.of("notes", tree).identity(1 << 30, gone)


def test_a_folder_that_cannot_be_read_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plainly = os.scandir

    def denied(path: str) -> object:
        if path.endswith("/deep"):
            raise PermissionError(13, "Permission denied")
        return plainly(path)

    monkeypatch.setattr(os, "scandir", denied)  # a mode of 000 would not stop root
    with pytest.raises(CorpusError, match=r"the folder '.*/a/deep' of the corpus '.*' cannot be read: Permission"):
        found(tree)


def test_a_long_listing_says_how_far_it_is(
    tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "EVERY", -1.0)
    identity(tree)
    assert "notes: 11 files so far, 86 bytes" in caplog.text


def test_names_are_spelt_out() -> None:
    assert spelt("caf\udce9\x1b[2J\n.txt") == r"caf\xe9\x1b[2J\n.txt"
