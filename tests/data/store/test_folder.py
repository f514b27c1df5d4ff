"""Artifacts: whole or absent, verified, locked, collected."""

import ctypes
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.errors import StoreError
from data.moment import now
from data.store import fingerprint
from data.store.folder import MANIFEST, Artifact, Manifest, Store


def publish(store: Store, text: str = "hello", stage: str = "train", parents: dict[str, str] | None = None) -> Artifact:
    components = {"stage": stage, "text": text}
    key = fingerprint.digest(components)
    with store.building(stage, key) as folder:
        (folder / "out.txt").write_text(text)
        outputs = {"out.txt": {"bytes": len(text), "sha256": fingerprint.file_digest(folder / "out.txt")}}
        manifest = Manifest.model_validate(
            {
                "stage": stage,
                "key": key,
                "components": components,
                "outputs": outputs,
                "config": {},
                "parents": parents or {},
                "created": now(),
            }
        )
        return store.publish(folder, manifest)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_published_is_found_whole(store: Store) -> None:
    artifact = publish(store)
    found = store.find("train", artifact.manifest.key)
    assert found == artifact
    assert (found.folder / "out.txt").read_text() == "hello"
    assert store.damage(found) is None
    assert list((store.root / "tmp").iterdir()) == []
    assert store.find("train", "0" * 64) is None


def test_a_failure_leaves_nothing_behind_and_the_old_artifact_in_place(store: Store) -> None:
    artifact = publish(store)

    def fail() -> None:
        with store.building("train", artifact.manifest.key) as folder:
            (folder / "out.txt").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (artifact.folder / "out.txt").read_text() == "hello"
    assert list((store.root / "tmp").iterdir()) == []


def test_publishing_again_replaces(store: Store) -> None:
    first, second = publish(store), publish(store)
    assert first.folder == second.folder
    assert second.manifest.created > first.manifest.created
    assert store.artifacts() == [second]


@pytest.mark.parametrize("kind", ["folder", "dangling link", "file"])
def test_publishing_takes_the_place_of_whatever_is_there(store: Store, tmp_path: Path, kind: str) -> None:
    folder = publish(store).folder
    if kind != "folder":
        folder.rename(tmp_path / "elsewhere")
    if kind == "dangling link":
        folder.symlink_to(tmp_path / "nowhere")
    elif kind == "file":
        folder.write_text("in the way")
    again = publish(store)
    assert (again.folder / "out.txt").read_text() == "hello"
    assert list((store.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("failing", [True, False])
def test_the_old_artifact_is_never_away(store: Store, monkeypatch: pytest.MonkeyPatch, failing: bool) -> None:
    first = publish(store)
    monkeypatch.setattr(ctypes, "CDLL", lambda *arguments, **options: None)  # a system that cannot exchange
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if failing and target == first.folder and "aside" not in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    if failing:
        with pytest.raises(StoreError, match="no space"):
            publish(store)
        assert store.find("train", first.manifest.key) == first
    else:
        assert publish(store).manifest.created > first.manifest.created


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.unlink(), "out.txt is missing"),
        (lambda path: path.write_text("hell"), "out.txt has 4 bytes instead of 5"),
        (lambda path: path.write_text("jello"), "the content of out.txt is not what was published"),
    ],
)
def test_damage_is_seen_by_the_next_process(store: Store, harm, said: str) -> None:  # type: ignore[no-untyped-def]
    artifact = publish(store)
    harm(artifact.folder / "out.txt")
    assert Store(store.root).damage(artifact) == said


def test_content_is_read_once_per_process_unless_asked_again(store: Store) -> None:
    artifact = publish(store)
    (artifact.folder / "out.txt").write_text("jello")
    assert store.damage(artifact) is None
    assert store.damage(artifact, again=True) is not None


@pytest.mark.parametrize(
    "old_new", [("{", ""), ('"text": "hello"', '"text": "other"')], ids=["not JSON", "not its key"]
)
def test_a_broken_manifest_is_no_artifact(store: Store, old_new: tuple[str, str]) -> None:
    artifact = publish(store)
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


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * 86_400,) * 2)


def test_collect_keeps_what_a_recent_artifact_was_made_from(store: Store) -> None:
    old = publish(store, "old", "download")
    lonely = publish(store, "lonely", "download")
    publish(store, "young", "train", parents={"download": old.manifest.key})
    age(old.folder / MANIFEST, 40)
    age(lonely.folder / MANIFEST, 40)
    doomed = [(lonely.folder, "not used for 30 days", (lonely.folder / MANIFEST).stat().st_size + 6)]
    assert store.collect(dry_run=True) == doomed
    assert lonely.folder.exists()
    store.collect()
    assert [artifact.manifest.stage for artifact in store.artifacts()] == ["train", "download"]
    assert not lonely.folder.exists()


def test_collect_takes_leftovers_of_the_dead_and_spares_the_living(store: Store) -> None:
    leftover = store.root / "tmp" / "train-0123456789abcdef-01234567"
    leftover.mkdir(parents=True)
    with store.building("train", "k" * 64) as folder:
        assert [path for path, _, _ in store.collect()] == [leftover]
        assert folder.is_dir()


def test_collect_touches_only_what_a_store_makes(store: Store) -> None:
    publish(store)
    for name in ("Documents/thesis", "tmp/mine", "checkpoints/mine", "train/notes", ".git/objects"):
        (store.root / name).mkdir(parents=True)
        age(store.root / name, 100)
    assert store.collect() == []


def test_collect_takes_the_damaged(store: Store) -> None:
    artifact = publish(store)
    (artifact.folder / "out.txt").unlink()
    assert [(path, why) for path, why, _ in store.collect()] == [(artifact.folder, "out.txt is missing")]
    assert not artifact.folder.exists()


def test_using_an_artifact_keeps_it(store: Store) -> None:
    artifact = publish(store)
    age(artifact.folder / MANIFEST, 40)
    store.touch(artifact)
    assert store.collect() == []


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
