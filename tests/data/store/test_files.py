"""Files that are there whole or not at all, on disks that fail and on drives that cannot sync a folder."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from data.errors import StoreError
from data.store import files, kernel, locks

if TYPE_CHECKING:
    from pathlib import Path

    from data.store.folder import Store
    from tests.data.store.conftest import Publish


def failing(monkeypatch: pytest.MonkeyPatch, number: int, *, folders: bool) -> None:
    """Let syncing end like this: of folders, or of files."""
    fsync = os.fsync

    def sync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode) == folders:
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(kernel, "fsync", sync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_folders_that_cannot_be_synced_are_passed_over(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing(monkeypatch, number, folders=True)
    artifact = publish()
    assert store.damage(artifact, again=True) is None
    files.replace(store.root / "file", b"whole")
    assert (store.root / "file").read_bytes() == b"whole"


@pytest.mark.parametrize(("number", "folders"), [(errno.EIO, True), (errno.EIO, False), (errno.EINVAL, False)])
def test_a_disk_that_fails_is_one_sentence(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch, number: int, folders: bool
) -> None:
    failing(monkeypatch, number, folders=folders)
    with pytest.raises(StoreError, match=f"the store {store.root} cannot be used \\({os.strerror(number)}: "):
        publish()


def test_what_a_descriptor_says_of_a_disk_names_the_store(store: Store) -> None:
    said = r"cannot be used \(Input/output error\): name a folder"
    with pytest.raises(StoreError, match=said), store.building("train", "k" * 64):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_full_disk_recommends_what_helps(store: Store) -> None:
    said = r"free some \(`rnnlm gc --checkpoints`, or `rnnlm gc --days 7`\)"
    with pytest.raises(StoreError, match=said), store.building("train", "k" * 64):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_lies_in_the_new_files_place_goes_and_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "file.new").symlink_to(tmp_path / "victim")
    files.replace(tmp_path / "file", b"whole")
    assert not (tmp_path / "file").is_symlink()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"victim": "mine", "file": "whole"}


def test_where_there_are_no_locks_what_was_left_in_the_new_files_place_goes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(kernel, "flock", flock)
    (tmp_path / "file.new").write_bytes(b"half")
    files.replace(tmp_path / "file", b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"whole")]


@pytest.mark.parametrize("moment", ["before the lock", "as it is cleared"])
def test_who_comes_between_has_a_new_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The first time that it is asked for, the new file is not the one that was opened."""
    answers = iter([False])
    same = locks.same
    monkeypatch.setattr(locks, "same", lambda handle, path: next(answers, None) is None and same(handle, path))
    if moment == "as it is cleared":
        (tmp_path / "file.new").write_bytes(b"half")
    files.replace(tmp_path / "file", b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"whole")]


def test_an_artifact_takes_the_place_of_what_came_there_meanwhile(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, kind = publish(), files.kind
    answers = iter([0])
    monkeypatch.setattr(files, "kind", lambda path: next(answers, kind(path)) if path == first.folder else kind(path))
    assert store.damage(publish(), again=True) is None
    assert next(answers, None) is None
    assert store.entries("tmp") == []


def test_a_folder_that_only_its_owner_opens_is_not_waited_for_and_a_file_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(kernel, "open", denied)
    (tmp_path / "file").touch()
    files.sync(tmp_path)
    with pytest.raises(PermissionError, match="file"):
        files.sync(tmp_path / "file")


def test_what_is_not_there_cannot_be_exchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        kernel.exchange(tmp_path, tmp_path / "none")
