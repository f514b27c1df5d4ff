"""What `gc` removes: leftovers, the damaged and the unused, and nothing that is not the store's own."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from data.store.artifact import MANIFEST
from data.store.collect import collect

if TYPE_CHECKING:
    from pathlib import Path

    from data.store.folder import Store
    from tests.data.store.conftest import Publish


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * 86_400,) * 2)


def test_collect_keeps_what_a_recent_artifact_was_made_from(store: Store, publish: Publish) -> None:
    old = publish("old", "download")
    lonely = publish("lonely", "download")
    publish("young", "train", parents={"download": old.manifest.key})
    age(old.folder / MANIFEST, 40)
    age(lonely.folder / MANIFEST, 40)
    doomed = [(lonely.folder, "not used for 30 days", (lonely.folder / MANIFEST).stat().st_size + 6)]
    assert collect(store, dry_run=True) == doomed
    assert lonely.folder.exists()
    collect(store)
    assert [artifact.manifest.stage for artifact in store.artifacts()] == ["train", "download"]
    assert not lonely.folder.exists()


def test_collect_takes_leftovers_of_the_dead_and_spares_the_living(store: Store) -> None:
    leftover = store.root / "tmp" / "train-0123456789abcdef-01234567"
    leftover.mkdir(parents=True)
    with store.building("train", "k" * 64) as folder:
        assert [path for path, _, _ in collect(store)] == [leftover]
        assert folder.is_dir()


def test_collect_touches_only_what_a_store_makes(store: Store, publish: Publish) -> None:
    publish()
    for name in ("Documents/thesis", "tmp/mine", "checkpoints/mine", "train/notes", ".git/objects"):
        (store.root / name).mkdir(parents=True)
        age(store.root / name, 100)
    assert collect(store) == []


def test_collect_takes_the_damaged(store: Store, publish: Publish) -> None:
    artifact = publish()
    (artifact.folder / "out.txt").unlink()
    assert [(path, why) for path, why, _ in collect(store)] == [(artifact.folder, "out.txt is missing")]
    assert not artifact.folder.exists()


def test_using_an_artifact_keeps_it(store: Store, publish: Publish) -> None:
    artifact = publish()
    age(artifact.folder / MANIFEST, 40)
    store.touch(artifact)
    assert collect(store) == []
