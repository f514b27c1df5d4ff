"""A store of a test's own, and artifacts for it that no stage has to make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data.moment import now
from data.store import fingerprint
from data.store.artifact import Artifact
from data.store.folder import Store
from data.store.manifest import Manifest

Publish = Callable[..., Artifact]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def publish(store: Store) -> Publish:
    """Publish an artifact of one small file; the same text, the same key."""

    def call(
        text: str = "hello", stage: str = "train", file: str = "out.txt", parents: dict[str, str] | None = None
    ) -> Artifact:
        components = {"stage": stage, "text": text}
        key = fingerprint.digest(components)
        with store.building(stage, key) as folder:
            (folder / file).write_text(text)
            manifest = {
                "stage": stage,
                "key": key,
                "components": components,
                "outputs": {file: {"bytes": len(text), "sha256": fingerprint.file_digest(folder / file)}},
                "config": {},
                "parents": parents or {},
                "created": now(),
            }
            return store.publish(folder, Manifest.model_validate(manifest))

    return call
