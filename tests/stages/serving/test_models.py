"""Which models are served as names come, change, and stand for what cannot be read."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from data.errors import StoreError
from data.store import champions
from data.store.folder import Store
from data.store.naming import DEFAULT
from stages.serving import limits
from stages.serving.metrics import Metrics
from stages.serving.models import Champions, Models
from stages.serving.refused import Refused
from stages.serving.writer import Writer


class Told:
    """A source that says what it is told to."""

    every = 0.0

    def __init__(self, folder: Path) -> None:
        self.names, self.folder = {DEFAULT: "a" * 64}, folder
        self.damaged: set[str] = set()
        self.tried = 0

    def keys(self) -> dict[str, str]:
        return dict(self.names)

    def found(self, name: str) -> tuple[str, Path]:
        self.tried += 1
        if name not in self.names:
            raise StoreError("there is no trained model")
        if self.names[name] in self.damaged:
            raise StoreError(f"the model {self.names[name][:16]} is damaged")
        return self.names[name], self.folder


@pytest.fixture
def source(model: Path) -> Told:
    return Told(model)


@pytest.fixture
def models(source: Told) -> Models:
    begun = Models(source, Metrics(Writer()))
    begun.begin()
    return begun


def test_what_stays_is_not_read_again(models: Models, source: Told) -> None:
    before = models.named(DEFAULT)
    models.look()
    assert models.named(DEFAULT) is before
    assert source.tried == 1


def test_one_model_of_two_names_is_in_memory_once(models: Models, source: Told) -> None:
    source.names["poet"] = source.names[DEFAULT]
    models.look()
    assert models.named("poet").loaded is models.named(DEFAULT).loaded


def test_a_damaged_one_is_said_once_and_tried_again_in_a_while(
    models: Models, source: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source.names[DEFAULT] = "b" * 64
    source.damaged.add("b" * 64)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            models.look()
    assert source.tried == 2
    monkeypatch.setattr(limits, "AGAIN", 0.0)
    models.look()
    assert source.tried == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"default goes on as it is: the model {'b' * 16} is damaged"
    ]
    source.damaged.clear()
    models.look()
    assert models.named(DEFAULT).loaded.key == "b" * 64


def test_a_name_without_a_champion_goes_but_for_the_last(models: Models, source: Told) -> None:
    source.names["poet"] = "c" * 64
    models.look()
    del source.names["poet"]
    models.look()
    with pytest.raises(Refused, match="poet"):
        models.named("poet")
    source.names.clear()
    models.look()
    assert models.named(DEFAULT).loaded.key == "a" * 64


def test_a_damaged_one_of_several_keeps_none_from_the_others(source: Told) -> None:
    source.names |= {"poet": "d" * 64}
    source.damaged.add("d" * 64)
    models = Models(source, Metrics(Writer()))
    models.begin()
    assert [*models.served] == [DEFAULT]
    source.damaged.add("a" * 64)
    with pytest.raises(StoreError, match="none of the champions"):
        Models(source, Metrics(Writer())).begin()
    source.names.clear()
    with pytest.raises(StoreError, match="no trained model"):
        Models(source, Metrics(Writer())).begin()


def test_without_a_champion_the_newest_model_is_followed(finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    source = Champions(lambda: Store(store))
    [model] = (store / "train").iterdir()
    [key] = source.keys().values()
    assert key.startswith(model.name)
    assert source.found(DEFAULT) == (key, model)
    champions.promote(Store(store), key, "a test", {}, name="poet")
    assert source.keys() == {DEFAULT: key, "poet": key}
    shutil.rmtree(model)
    assert source.keys() == {"poet": key}
