"""Files that anybody may have put there: what is none is neither waited for nor read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from data.store import reading


def large(path: Path) -> None:
    path.touch()
    os.truncate(path, reading.LARGEST + 1)


@pytest.mark.parametrize(
    ("put", "says"),
    [
        (os.mkfifo, "it is no file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is no file"),
        (Path.mkdir, "it is no file"),
        (large, "it is too large"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
    ids=["pipe", "device", "folder", "large", "link to itself"],
)
def test_what_is_no_small_file_is_refused(tmp_path: Path, put: Callable[[Path], object], says: str) -> None:
    path = tmp_path / "file"
    put(path)
    with pytest.raises(OSError, match=says):
        reading.read(path)


def test_a_file_is_read_and_a_link_to_one_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert reading.read(tmp_path / "file") == reading.read(tmp_path / "link") == b"content"
    assert reading.check(tmp_path / "link") == tmp_path / "link"
