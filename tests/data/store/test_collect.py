"""What `gc` removes: leftovers, the damaged and the unused, and nothing that is not the store's own."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data.moment import now
from data.store import champions, kernel, locks, nights
from data.store.artifact import MANIFEST, Artifact
from data.store.collect import collect
from data.store.nights import Model, NightRecord
from data.store.removal import Removal, remove, stamp_of

if TYPE_CHECKING:
    from data.store.folder import Store
    from tests.data.store.conftest import Publish


def age(path: Path, days: float) -> None:
    for one in (path, path.parent) if path.name == MANIFEST else (path,):
        os.utime(one, (time.time() - days * 86_400,) * 2)


def test_collect_keeps_what_a_recent_artifact_was_made_from(store: Store, publish: Publish) -> None:
    old = publish("old", "download")
    lonely = publish("lonely", "download")
    publish("young", "train", parents={"download": old.manifest.key})
    age(old.folder / MANIFEST, 40)
    age(lonely.folder / MANIFEST, 40)
    doomed = [(lonely.folder, "not used for 30 days", (lonely.folder / MANIFEST).stat().st_size + 6, "")]
    assert [tuple(removal) for removal in collect(store, dry_run=True)] == doomed
    assert lonely.folder.exists()
    collect(store)
    assert [artifact.manifest.stage for artifact in store.artifacts()] == ["train", "download"]
    assert not lonely.folder.exists()


def test_collect_takes_leftovers_of_the_dead_and_spares_the_living(store: Store) -> None:
    leftover = store.root / "tmp" / "train-0123456789abcdef-01234567"
    leftover.mkdir(parents=True)
    with store.building("train", "k" * 64) as folder:
        assert [removal.folder for removal in collect(store)] == [leftover]
        assert folder.is_dir()


def test_a_disk_without_room_for_a_lock_is_swept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    leftover = store.root / "tmp" / "train-0123456789abcdef-01234567"
    leftover.mkdir(parents=True)
    opened = kernel.open

    def full(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(kernel, "open", full)
    assert [removal.folder for removal in collect(store)] == [leftover]
    assert not leftover.exists()


def test_collect_touches_only_what_a_store_makes(store: Store, publish: Publish) -> None:
    publish()
    for name in ("Documents/thesis", "tmp/mine", "checkpoints/mine", "train/notes", ".git/objects"):
        (store.root / name).mkdir(parents=True)
        age(store.root / name, 100)
    assert collect(store) == []


def test_collect_takes_the_damaged(store: Store, publish: Publish) -> None:
    artifact = publish()
    (artifact.folder / "out.txt").unlink()
    assert [removal[:2] for removal in collect(store)] == [(artifact.folder, "out.txt is missing")]
    assert not artifact.folder.exists()


def test_using_an_artifact_keeps_it(store: Store, publish: Publish) -> None:
    artifact = publish()
    age(artifact.folder / MANIFEST, 40)
    store.touch(artifact)
    assert collect(store) == []


@pytest.fixture
def others(publish: Publish, store: Store) -> Iterator[Artifact]:
    """An unused artifact in a folder that this process may read and not change."""
    artifact = publish()
    age(artifact.folder / MANIFEST, 40)
    if os.geteuid():
        artifact.folder.chmod(0o555)
        yield artifact
        artifact.folder.chmod(0o755)
        return
    above = [path for path in store.root.parents if path.is_relative_to("/tmp") and path != Path("/tmp")]
    modes = [path.stat().st_mode for path in above]
    for path in above:
        path.chmod(0o755)
    for path in (store.root, store.root / "tmp", store.root / "locks"):
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
    os.seteuid(65_534)
    yield artifact
    os.seteuid(0)
    for path, mode in zip(above, modes, strict=True):
        path.chmod(mode)


def test_what_cannot_be_removed_frees_nothing_and_says_why(store: Store, others: Artifact) -> None:
    removals = collect(store)
    assert [(one.folder, one.bytes, one.fault) for one in removals] == [(others.folder, 0, "Permission denied")]
    assert store.damage(others, again=True) is None


def test_a_file_with_another_name_frees_nothing(store: Store, publish: Publish, tmp_path: Path) -> None:
    artifact = publish()
    age(artifact.folder / MANIFEST, 40)
    (tmp_path / "other").hardlink_to(artifact.folder / "out.txt")
    size = (artifact.folder / MANIFEST).stat().st_size
    assert [one.bytes for one in collect(store, dry_run=True)] == [one.bytes for one in collect(store)] == [size]


def test_days_and_checkpoints_of_what_has_ended(store: Store, publish: Publish) -> None:
    old = publish("old", "download")
    age(old.folder / MANIFEST, 3)
    for name, days in (("0" * 16, 1), ("1" * 16, 8), ("2" * 16, 8)):
        folder = store.root / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "000001-000000.safetensors").write_text("weights")
        for path in (folder / "000001-000000.safetensors", folder):
            age(path, days)
    ended, going_on = ["0" * 16, "1" * 16], "2" * 16

    def would(**options: Any) -> list[str]:
        return [removal.folder.name for removal in collect(store, dry_run=True, finished=ended, **options)]

    assert would() == [ended[1]], "after a week"
    assert would(checkpoints=True) == ended
    assert would(days=5) == [ended[1], going_on]
    assert would(days=2) == [ended[1], old.folder.name, going_on]
    with store.lock("checkpoints", ended[1], lambda: None):
        assert [removal.fault for removal in collect(store, finished=ended)] == ["a process is using it"]
    collect(store, finished=ended)
    assert sorted(path.name for path in store.folders("checkpoints")) == [ended[0], going_on]


def test_of_champions_the_last_stay_and_of_models_as_many_as_asked_for(store: Store, publish: Publish) -> None:
    corpus = publish("corpus", "download").manifest.key
    models = [publish(f"model {number}", "train", parents={"download": corpus}) for number in range(16)]
    for model in models[:14]:
        champions.promote(store, model.manifest.key, "it is better", {})
    champions.rollback(store, "it swears")  # which makes the one before it the champion
    for artifact in store.artifacts():
        age(artifact.folder / MANIFEST, 400)

    def stay(**options: Any) -> list[int]:
        gone = {one.folder for one in collect(store, dry_run=True, **options)}
        return [number for number, model in enumerate(models) if model.folder not in gone]

    assert stay() == [*range(2, 13)], "the champion and the ten before it"
    assert stay(keep=1) == [*range(2, 13), 15]
    assert stay(keep=3, days=0) == [*range(2, 16)]
    assert stay(keep=3, limit=0) == [*range(2, 13)], "a store that is too large loses them, too"
    collect(store)
    assert champions.rollback(store, "this one, too").model == models[11].manifest.key


def test_what_is_at_work_keeps_what_was_used_before_it_began(store: Store, publish: Publish) -> None:
    read = publish("read", "tokenize")
    age(read.folder / MANIFEST, 0.5)
    with store.lock("train", "a" * 64, lambda: None), store.building("train", "a" * 64):
        assert collect(store, days=0) == []
    assert read.folder in [removal.folder for removal in collect(store, days=0)]


def test_locks_and_reports_of_what_is_gone_are_collected(store: Store, publish: Publish) -> None:
    evaluated = publish("figures", "evaluate")
    with store.lock("train", "b" * 64, lambda: None):
        pass
    (store.root / "reports").mkdir()
    lock, gone, linked = (
        store.root / name
        for name in (f"locks/train-{'b' * 16}", f"reports/{'c' * 16}.html", f"reports/{'d' * 16}.html")
    )
    kept = store.root / "reports" / f"{evaluated.folder.name}.html"
    for path in (gone, linked, kept):
        path.write_text("a page")
    candidate = Model(key="e" * 64, page=f"reports/{linked.name}")
    night = NightRecord(when=now(), name="default", decision="rejected", reason="no better", candidate=candidate)
    nights.add(store, night)
    for path in (lock, gone, linked, kept):
        age(path, 40)
    assert {removal.folder: removal.bytes for removal in collect(store)} == {gone: 6, lock: 0}
    assert kept.exists()
    assert not lock.exists()


def test_above_a_limit_what_was_used_longest_ago_goes_and_nothing_of_the_last_day(
    store: Store, publish: Publish
) -> None:
    artifacts = [publish(f"{number}" * 1000, "download") for number in range(5)]
    pinned = publish("a champion", parents={"download": artifacts[0].manifest.key})
    champions.promote(store, pinned.manifest.key, "it is better", {})
    for number, artifact in enumerate(artifacts[:4]):
        age(artifact.folder / MANIFEST, 20 - number)
    sizes = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())

    def gone(limit: float, elsewhere: set[str] | None = None) -> list[Path]:
        found = collect(store, dry_run=True, limit=limit, elsewhere=elsewhere)
        return [removal.folder for removal in found]

    assert gone(sizes) == []
    assert gone(sizes - 1) == [artifacts[1].folder]
    assert gone(0) == [artifact.folder for artifact in artifacts[1:4]]
    assert gone(0, {artifacts[2].place}) == [artifacts[2].folder]


def test_what_is_used_as_it_is_to_go_stays(store: Store, publish: Publish) -> None:
    made = publish()
    lock = store.root / "locks" / f"tokenize-{'0' * 16}"
    lock.parent.mkdir()
    with locks.held(lock):
        assert remove(store, Removal(lock, "", 0), ()).fault == "a process is using it"
    page = store.root / "reports" / f"{made.folder.name}.html"
    page.parent.mkdir()
    page.touch()
    assert remove(store, Removal(page, "", 0), ()).fault == "a process is using it", "its artifact was made again"
    assert page.exists()
    with locks.held(store.root / "locks" / f"train-{made.folder.name}"):
        assert remove(store, Removal(made.folder, "", 0), stamp_of(made.folder)).fault == "a process is using it"
    held = locks.hold(made.folder)
    assert remove(store, Removal(made.folder, "", 0), stamp_of(made.folder)).fault == "a process is using it"
    del held
    assert not remove(store, Removal(made.folder, "", 0), stamp_of(made.folder)).fault
    assert not made.folder.exists()


def test_what_was_used_as_it_was_moved_aside_is_put_back(
    store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, rename = publish(), kernel.rename

    def late(one: Path, other: Path) -> None:
        if one == made.folder:
            os.utime(made.folder)
        rename(one, other)

    monkeypatch.setattr(kernel, "rename", late)
    assert remove(store, Removal(made.folder, "", 0), stamp_of(made.folder)).fault == "a process is using it"
    assert store.damage(made) is None
