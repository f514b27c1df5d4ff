"""Artifacts: whole or absent, verified, locked; and where the store is."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.errors import RnnlmError, StoreError
from data.store import kernel, nights
from data.store.artifact import MANIFEST
from data.store.collect import collect
from data.store.folder import Store, open_store

if TYPE_CHECKING:
    from tests.data.store.conftest import Publish

ROOT = Path(__file__).parents[3]


def test_what_is_published_is_found_whole(store: Store, publish: Publish) -> None:
    artifact = publish()
    found = store.find("train", artifact.manifest.key)
    assert found == artifact
    assert (found.folder / "out.txt").read_text() == "hello"
    assert store.damage(found) is None
    assert list((store.root / "tmp").iterdir()) == []
    assert store.find("train", "0" * 64) is None


def test_a_failure_leaves_nothing_behind_and_the_old_artifact_in_place(store: Store, publish: Publish) -> None:
    artifact = publish()

    def fail() -> None:
        with store.building("train", artifact.manifest.key) as folder:
            (folder / "out.txt").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (artifact.folder / "out.txt").read_text() == "hello"
    assert list((store.root / "tmp").iterdir()) == []


def test_publishing_again_replaces(store: Store, publish: Publish) -> None:
    first, second = publish(), publish()
    assert first.folder == second.folder
    assert second.manifest.created > first.manifest.created
    assert store.artifacts() == [second]


@pytest.mark.parametrize("kind", ["folder", "dangling link", "file"])
def test_publishing_takes_the_place_of_whatever_is_there(
    store: Store, publish: Publish, tmp_path: Path, kind: str
) -> None:
    folder = publish().folder
    if kind != "folder":
        folder.rename(tmp_path / "elsewhere")
    if kind == "dangling link":
        folder.symlink_to(tmp_path / "nowhere")
    elif kind == "file":
        folder.write_text("in the way")
    again = publish()
    assert (again.folder / "out.txt").read_text() == "hello"
    assert list((store.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("failing", [True, False])
def test_the_old_artifact_is_never_away(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    first = publish()
    monkeypatch.setattr(ctypes, "CDLL", lambda *arguments, **options: None)  # a system that cannot exchange
    rename = kernel.rename

    def full(path: Path, target: Path) -> None:
        if failing and target == first.folder and "aside" not in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(path, target)

    monkeypatch.setattr(kernel, "rename", full)
    if failing:
        with pytest.raises(StoreError, match="no space"):
            publish()
        assert store.find("train", first.manifest.key) == first
    else:
        assert publish().manifest.created > first.manifest.created


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.unlink(), "out.txt is missing"),
        (lambda path: path.write_text("hell"), "out.txt has 4 bytes instead of 5"),
        (lambda path: path.write_text("jello"), "the content of out.txt is not what was published"),
    ],
)
def test_damage_is_seen_by_the_next_process(
    store: Store, publish: Publish, harm: Callable[[Path], object], says: str
) -> None:
    artifact = publish()
    harm(artifact.folder / "out.txt")
    assert Store(store.root).damage(artifact) == says


def test_content_is_read_once_per_process_unless_asked_again(store: Store, publish: Publish) -> None:
    artifact = publish()
    (artifact.folder / "out.txt").write_text("jello")
    assert store.damage(artifact) is None
    assert store.damage(artifact, again=True) is not None
    assert store.damage(artifact) is not None


@pytest.mark.parametrize(
    "old_new", [("{", ""), ('"text": "hello"', '"text": "other"')], ids=["not JSON", "not its key"]
)
def test_a_broken_manifest_is_no_artifact(store: Store, publish: Publish, old_new: tuple[str, str]) -> None:
    artifact = publish()
    text = (artifact.folder / MANIFEST).read_text()
    (artifact.folder / MANIFEST).write_text(text.replace(*old_new, 1))
    assert store.find("train", artifact.manifest.key) is None
    assert store.artifacts() == []


HOLD = """
import sys
from pathlib import Path
from data.store.folder import Store
with Store(Path(sys.argv[1])).lock("train", "k" * 64, lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_keeps_a_second_process_out_until_the_first_is_done(store: Store) -> None:
    command = [sys.executable, "-c", HOLD, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        waited = []

        def waiting() -> None:
            waited.append(other.poll())
            other.stdin.close()  # type: ignore[union-attr]

        with store.lock("train", "k" * 64, waiting):
            assert waited == [None]


def test_a_full_disk_is_one_sentence(store: Store) -> None:
    with pytest.raises(StoreError, match="no space is left for the store"), store.building("train", "k" * 64):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_store_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"), Store(tmp_path / "file").building("train", "k" * 64):
        pass


def test_an_error_of_the_stage_itself_is_not_blamed_on_the_store(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), store.building("train", "k" * 64):
        (tmp_path / "nowhere").read_text()


# --- where it is


def test_the_store_is_the_folder_named_else_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNLM_STORE", str(tmp_path / "everyday"))
    assert open_store(str(tmp_path / "named")).root == tmp_path / "named"
    assert open_store(None).root == tmp_path / "everyday"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert open_store("~/mine").root == open_store("mine").root == tmp_path / "mine"
    monkeypatch.setenv("RNNLM_STORE", "")
    assert open_store(None).root == ROOT / "data" / "artifacts"


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        (__file__, f"the store {__file__} is a file: name a folder with --store or RNNLM_STORE"),
        ("s3://bucket/store", "the store s3://bucket/store is an address"),
        ("~nobody-of-that-name/store", "cannot be a folder"),
        ("n" * 5000, "cannot be a folder"),
    ],
)
def test_a_store_that_cannot_be_is_one_sentence(folder: str, says: str) -> None:
    with pytest.raises(RnnlmError, match=says) as refusal:
        open_store(folder)
    assert "\n" not in str(refusal.value)


WHERE = (
    "from data.store.folder import open_store; import sys; print(open_store(None).root, 'platformdirs' in sys.modules)"
)


@pytest.mark.parametrize("checkout", [True, False])
def test_an_installed_program_keeps_its_store_with_the_users_data(tmp_path: Path, checkout: bool) -> None:
    packages = tmp_path / "packages"
    ignored = shutil.ignore_patterns("artifacts", "__pycache__")
    shutil.copytree(ROOT / "data", packages / "data", ignore=ignored)
    if checkout:
        shutil.copy(ROOT / "pyproject.toml", packages)
    environment = {name: value for name, value in os.environ.items() if name != "RNNLM_STORE"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(packages), *sys.path]), "XDG_DATA_HOME": str(tmp_path / "mine")}
    done = subprocess.run(
        [sys.executable, "-c", WHERE], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    expected = packages / "data" / "artifacts" if checkout else tmp_path / "mine" / "rnnlm"
    assert done.stdout.split() == [str(expected), str(not checkout)]


ALONE = """
import sys, time
from pathlib import Path
from data.store.folder import Store
with Store(Path(sys.argv[1])).alone("night-x") as alone:
    print(alone, flush=True)
    time.sleep(60)
"""


def test_only_one_process_is_alone_and_its_end_frees_the_place(store: Store) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ALONE, str(store.root)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "True\n"
        with store.alone("night-x") as alone:
            assert not alone
        with store.alone("night-x-and-more") as alone:
            assert alone, "names are told apart however long they are"
        other.kill()
    with store.alone("night-x") as alone:
        assert alone


def test_a_folder_that_cannot_be_read_is_named_and_the_rest_goes_on(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sound = publish(stage="download")
    publish()
    listdir = kernel.listdir

    def refused(path: Path) -> list[str]:
        if path.name in ("train", "nights"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listdir(path)

    monkeypatch.setattr(kernel, "listdir", refused)  # whoever is root may read everything
    assert store.artifacts() == [sound]
    assert collect(store, days=0) == [], "what cannot be read may be made from it"
    said = f"{store.root / 'train'} cannot be read (Permission denied) and is passed over: make it readable"
    assert caplog.messages.count(said) == 1
    assert nights.refused(store) == set()


def test_a_file_that_leads_nowhere_is_damage_and_not_the_disks_fault(store: Store, publish: Publish) -> None:
    artifact = publish()
    (artifact.folder / "out.txt").unlink()
    (artifact.folder / "out.txt").symlink_to("out.txt")
    assert store.damage(artifact) == "out.txt cannot be read (Too many levels of symbolic links)"
    assert not store.unread


def test_a_manifest_of_more_files_than_any_stage_writes_is_none(store: Store, publish: Publish) -> None:
    manifest = publish().folder / "manifest.json"
    written = json.loads(manifest.read_text())
    written["outputs"] |= {f"{number}.txt": written["outputs"]["out.txt"] for number in range(1000)}
    manifest.write_text(json.dumps(written))
    assert store.find("train", written["key"]) is None
