"""What somebody, or a failing disk, has left in a store: commands go on, name it, and write nowhere else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from data.store.artifact import MANIFEST
from data.store.collect import collect
from data.store.folder import Store

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


def broken(manifest: bytes) -> dict[str, Callable[[Path], object]]:
    """What can lie in a manifest's place, each by what is wrong with it."""
    contents = {
        "nothing": b"",
        "no JSON": b"{",
        "another type": b"[1]",
        "not UTF-8": b"\xff\xfe{}",
        "nested deeply": b'{"components":' * 100_000,
        "not a number": manifest.replace(b'"version": 1', b'"version": NaN'),
        "infinite": manifest.replace(b'"config": {', b'"config": {"x": Infinity, '),
        "a large integer": manifest.replace(b'"version": 1', b'"version": ' + b"9" * 5000),
        "a large integer beside the key": manifest.replace(b'"config": {', b'"config": {"x": ' + b"9" * 5000 + b", "),
        "NUL in a name": manifest.replace(b'"model.safetensors": {', b'"model\\u0000": {'),
        "a name that leads away": manifest.replace(b'"model.safetensors": {', b'"../../model": {'),
        "a name for a terminal": manifest.replace(b'"model.safetensors": {', b'"\\u001b[2J": {'),
        "half a character": manifest.replace(b'"version": 1', b'"version": "\\ud800"'),
        "NUL in a parent": manifest.replace(b'"parents": {', b'"parents": {"a\\u0000": "b", '),
        "a size below zero": manifest.replace(b'"bytes": ', b'"bytes": -'),
        "no date": manifest.replace(b'"created": "', b'"created": "\\u001b'),
    }
    assert all(content != manifest for content in contents.values())

    def written(content: bytes) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(content)

    return {
        **{name: written(content) for name, content in contents.items()},
        "a pipe": os.mkfifo,
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a folder": Path.mkdir,
        "a link to itself": lambda path: path.symlink_to(path),
    }


def test_a_manifest_that_is_none_is_named_and_hinders_nobody(here: Rnnlm, trained: Path) -> None:
    store = trained.parent / "store"
    (sound,) = (store / "train").iterdir()
    planted = []
    for number, plant in enumerate(broken((sound / MANIFEST).read_bytes()).values()):
        folder = store / "train" / f"{number:016}"
        shutil.copytree(sound, folder)
        (folder / MANIFEST).unlink()
        plant(folder / MANIFEST)
        planted.append(folder)

    state = json.loads(here("status", "--preset", trained, "--json").stdout)["stages"]
    assert [one["state"] for one in state] == ["cached"] * 4
    here("status", "--preset", trained, "--set", "train.hidden_size=9")
    assert here("run", "--preset", trained).stderr.count("cached") == 4
    verified = here("verify", code=2)
    assert verified.stdout.count("sound") == 5
    assert all(f"{folder.name} its manifest cannot be read" in verified.stdout for folder in planted)
    assert f"{len(planted)} of {5 + len(planted)} artifacts" in verified.stderr
    collected = here("gc").stdout
    assert all(f"{folder}  " in collected for folder in planted)
    assert [path.name for path in (store / "train").iterdir()] == [sound.name]
    assert here("status", "--preset", trained).stderr == ""


def test_a_manifest_under_the_key_that_is_asked_for_is_made_again(here: Rnnlm, trained: Path) -> None:
    (sound,) = (trained.parent / "store" / "tokenize").iterdir()
    (sound / MANIFEST).unlink()
    os.mkfifo(sound / MANIFEST)
    assert "damaged: its manifest cannot be read" in here("status", "--preset", trained).stdout
    done = here("run", "--preset", trained)
    assert "tokenize: the artifact is damaged: its manifest cannot be read; running the stage again" in done.stderr


@pytest.mark.parametrize("stage", ["download", "tokenize", "train", "evaluate"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(here: Rnnlm, trained: Path, stage: str) -> None:
    (folder,) = (trained.parent / "store" / stage).iterdir()
    path = max(folder.iterdir())
    path.unlink()
    os.mkfifo(path)
    done = here("run", "--preset", trained)
    assert f"{stage}: the artifact is damaged: {path.name} is no file; running the stage again" in done.stderr
    assert here("verify").stdout.count("sound") == 5


def test_a_pipe_beside_the_artifacts_is_named(here: Rnnlm, trained: Path) -> None:
    store = trained.parent / "store"
    for path in (store / "champion.json", store / "nights" / "default.jsonl"):
        path.parent.mkdir(exist_ok=True)
        os.mkfifo(path)
    for page in (store / "reports").iterdir():
        page.unlink()
        os.mkfifo(page)
    for lock in (store / "locks").iterdir():
        lock.unlink()
        os.mkfifo(lock)
    assert "champion.json does not say which model is the champion (it is no file)" in here("sample", code=2).stderr
    assert "does not say what the nights decided (it is no file)" in here("history", code=2).stderr
    assert "champion.json does not say" in here("gc", code=2).stderr
    assert "cached" in here("run", "--preset", trained).stderr
    here("train", "--preset", trained, "--force", "train")
    assert all(page.is_file() for page in (store / "reports").iterdir())


# --- links


def victims(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_written_through_a_link(here: Rnnlm, trained: Path, tmp_path: Path) -> None:
    store, outside = trained.parent / "store", tmp_path / "outside"
    outside.mkdir()
    (victim := outside / "victim").write_text("mine")
    before = victims(outside)
    (page,) = (store / "reports").glob("*.html")
    for name in (f"{page.name}.new", f"{page.stem}.json.new"):
        (store / "reports" / name).symlink_to(victim)
    (model,) = (store / "train").iterdir()
    (store / "champion.json.new").symlink_to(victim)
    page.unlink()
    here("run", "--preset", trained)
    here("promote", model.name)
    assert page.is_file()
    for lock in (store / "locks").iterdir():
        lock.unlink()
        lock.symlink_to(victim)
    refused = here("train", "--preset", trained, "--force", "train", code=2).stderr
    assert "a link is not written through: " in refused
    assert victims(outside) == before
    for lock in (store / "locks").iterdir():
        lock.unlink()
        (outside / lock.name).write_text("mine")
        lock.hardlink_to(outside / lock.name)
    here("train", "--preset", trained, "--force", "train")
    assert {path.read_text() for path in outside.iterdir()} == {"mine"}


@pytest.mark.parametrize("name", ["tmp", "locks", "train", "checkpoints", "reports", "champions"])
def test_a_folder_that_is_a_link_is_not_written_into(here: Rnnlm, trained: Path, tmp_path: Path, name: str) -> None:
    store, outside = trained.parent / "store", tmp_path / "outside"
    if (store / name).exists():
        (store / name).rename(outside)
    else:
        outside.mkdir()
    (store / name).symlink_to(outside)
    before = victims(outside) if name != "train" else {}
    (model,) = (store / "train").iterdir()
    if name == "champions":
        done = here("promote", model.name, "--name", "other", code=2)
    else:
        done = here("run", "--preset", trained, "--from", "train", code=0 if name == "reports" else 2)
    assert f"{store / name} is a link, and nothing is written through one: put a folder there" in done.stderr
    assert name == "train" or victims(outside) == before
    collected = here("gc", "--days", "0", "--checkpoints", code=2 if name in ("tmp", "locks") else 0)
    assert str(outside) not in collected.stdout
    assert name == "train" or victims(outside) == before


def test_gc_takes_a_link_away_and_says_that_it_has_freed_nothing(here: Rnnlm, trained: Path, tmp_path: Path) -> None:
    store = trained.parent / "store"
    (model,) = (store / "train").iterdir()
    model.rename(tmp_path / "elsewhere")
    model.symlink_to(tmp_path / "elsewhere")
    for path in (model, tmp_path / "elsewhere" / MANIFEST):
        os.utime(path, (0, 0), follow_symlinks=False)
    (evaluated,) = (store / "evaluate").iterdir()
    shutil.rmtree(evaluated)
    for path in (store / "checkpoints").iterdir():
        shutil.rmtree(path)
    done = here("gc").stdout.splitlines()
    assert f"{model}  0 B  not used for 30 days" in done
    assert done[-1] == "freed 0 B"
    assert (tmp_path / "elsewhere" / MANIFEST).is_file()
    assert not model.is_symlink()
    assert here("gc").stdout == "freed 0 B\n"


def test_what_a_killed_process_was_writing_is_collected_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    from data.store import locks

    store = Store(tmp_path / "store")
    left = [store.root / name for name in ("champion.json.new", "reports/0123456789abcdef.html.new", "index.html.new")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    (store.root / "notes.new").write_text("somebody's own")
    handle = os.open(left[0], os.O_WRONLY)
    assert locks.take(handle, left[0])
    assert {removal.folder for removal in collect(store)} == {*left[1:]}
    os.close(handle)
    assert [removal.folder for removal in collect(store)] == [left[0]]
    assert [path.name for path in store.root.rglob("*.new")] == ["notes.new"]
