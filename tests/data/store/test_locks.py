"""Locks: one holder at a time, also where the file was taken away, and what is said where there are none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import StoreError
from data.store import kernel, locks
from data.store.collect import collect
from data.store.folder import Store

ROOT = Path(__file__).parents[3]


def test_who_waited_for_a_lock_that_was_taken_away_locks_the_one_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.held(path) as first:
        assert first
        with locks.held(path) as second:
            assert not second
        with locks.alone(path) as free:
            assert not free
        assert path.exists(), "somebody holds it"

    def waiting() -> None:
        os.close(handle)
        path.unlink()
        path.touch()

    handle = os.open(path, os.O_RDWR)
    assert locks.take(handle, path)
    with locks.held(path, waiting):
        assert not locks.free(path)
    path.unlink()
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    leftover = store.root / "tmp" / "train-0123456789abcdef-01234567"
    leftover.mkdir(parents=True)

    def flock(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(kernel, "flock", flock)
    for locked in (
        store.lock("train", "k" * 64, lambda: None),
        store.building("train", "k" * 64),
        store.alone("night"),
    ):
        with pytest.raises(StoreError, match=r"has no locks .* name a folder on a local disk with --store"), locked:
            pass
    with pytest.raises(StoreError, match="has no locks"):
        collect(store)


def test_a_lock_on_a_disk_that_fails_is_one_sentence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(kernel, "flock", flock)
    with pytest.raises(StoreError, match=r"cannot be used \(Input/output error: "), store.alone("night"):
        pass


def test_a_system_without_locks_is_one_sentence() -> None:
    script = "import sys; sys.modules['fcntl'] = None; sys.argv = ['rnnlm', 'presets']; "
    script += "from stages.cli.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("rnnlm: this system has no locks for files")
    assert "WSL" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_model_is_loaded_where_there_are_no_locks() -> None:
    script = "import sys; sys.modules['fcntl'] = None; import stages.lm.model"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_is_gone_or_no_folder_of_ours_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locks.free(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        locks.hold(tmp_path / "none")
    (tmp_path / "link").symlink_to(tmp_path)
    assert locks.hold(tmp_path / "link") is None
    monkeypatch.setattr(locks, "same", lambda handle, path: False)
    with pytest.raises(FileNotFoundError):  # it was replaced at this moment
        locks.hold(tmp_path)


def test_a_folder_to_build_in_that_is_swept_away_as_it_is_made_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept, opened = list[Path](), kernel.open

    def late(path: Path, flags: int) -> int:
        if not swept:
            swept.append(path)
            path.rmdir()
        return opened(path, flags)

    monkeypatch.setattr(kernel, "open", late)
    with store.building("train", "k" * 64) as folder:
        assert folder.is_dir()
    assert swept != [folder]


def test_a_folder_to_build_in_that_is_swept_away_before_its_lock_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept, take = list[Path](), locks.take

    def late(handle: int, path: Path, *, shared: bool = False, wait: bool = False) -> bool:
        if not swept:
            swept.append(path)
            path.rmdir()
        return take(handle, path, shared=shared, wait=wait)

    monkeypatch.setattr(locks, "take", late)
    with store.building("train", "k" * 64) as folder:
        assert folder.is_dir()
    assert swept != [folder]
