"""No engine goes on with another one's training: it begins anew, says so, and the other one's checkpoints stay."""

from __future__ import annotations

import itertools
import logging
import os
import signal
from pathlib import Path

import pytest

from data.errors import Interrupted, StoreError
from data.progress import Progress
from data.store.folder import Store
from stages.pipeline import decide, settings
from stages.pipeline import run as pipeline
from stages.training import engines

OTHER = next((name for name, build in engines.installed().items() if not build.absent and name != "bptt"), "")
"""An engine beside bptt, which is on every machine."""
ANEW = "training begins anew: {} would go on in epoch {} of {}, but no engine goes on with another one's training"

pytestmark = pytest.mark.skipif(not OTHER, reason="bptt is the only engine that is installed here")


class Trainings:
    """Trainings of a tiny model in one store, and what was said of them."""

    def __init__(self, tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.tiny, self.caplog = tiny, caplog
        self.store = Store(tiny.parent / "store")

    def __call__(self, engine: str, epochs: int = 3, *, stop: int = 0, forced: bool = False, store: str = "") -> bytes:
        """The weights that come out; ``stop`` is the call of the progress that interrupts it."""
        config = settings.load(str(self.tiny), None, [f"train.engine={engine}", f"train.epochs={epochs}"])
        self.caplog.clear()
        calls = itertools.count(1)

        def progress(done: float, total: float, figures: str) -> None:
            if next(calls) == stop:
                os.kill(os.getpid(), signal.SIGINT)

        def reporter(stage: str) -> Progress:
            return progress if stage == "train" else lambda done, total, figures: None

        at = Store(self.tiny.parent / store) if store else self.store
        with self.caplog.at_level(logging.INFO, "stages"):
            *_, train = pipeline.run(config, at, reporter, until="train", force=["train"] if forced else [])
        return (train.artifact.folder / "model.safetensors").read_bytes()

    def said(self) -> list[str]:
        """What the last one said of where it begins."""
        return [line for line in self.caplog.messages if line.startswith(("training begins", "training goes"))]


@pytest.fixture
def trained(tiny: Path, caplog: pytest.LogCaptureFixture) -> Trainings:
    return Trainings(tiny, caplog)


def test_what_one_engine_has_begun_another_begins_anew_and_the_first_goes_on(trained: Trainings) -> None:
    with pytest.raises(Interrupted):
        trained(OTHER, stop=1)
    assert trained("bptt") == trained("bptt", store="apart")
    trained("bptt", forced=True)
    assert trained.said() == [], "who asks to train again was not going on"
    assert trained(OTHER) == trained(OTHER, store="apart")


def test_it_says_so_where_there_was_something_to_go_on_with(trained: Trainings) -> None:
    with pytest.raises(Interrupted):
        trained(OTHER, stop=1)
    trained("bptt", epochs=4)
    assert trained.said() == [ANEW.format(OTHER, 1, 4)]
    trained("bptt", epochs=5)
    assert trained.said() == ["training goes on in epoch 5 of 5"], "which is its own"
    trained(OTHER)
    assert trained.said() == ["training goes on in epoch 1 of 3"]


def test_a_training_that_was_shorter_would_have_gone_on_too_and_one_that_has_ended_would_not(
    trained: Trainings,
) -> None:
    trained(OTHER, epochs=2)
    trained("bptt", epochs=2)
    assert trained.said() == [], "there is no more to do"
    trained(OTHER, epochs=3)
    assert trained.said() == ["training goes on in epoch 3 of 3"]


def test_longer_than_what_another_has_ended(trained: Trainings) -> None:
    trained(OTHER, epochs=2)
    trained("bptt", epochs=3)
    assert trained.said() == [ANEW.format(OTHER, 3, 3)]


def test_other_settings_are_another_training(trained: Trainings) -> None:
    trained(OTHER, epochs=1)
    trained.tiny.write_text(trained.tiny.read_text().replace("hidden_size = 8", "hidden_size = 9"))
    trained("bptt", epochs=2)
    assert trained.said() == []


def test_what_another_version_has_begun_begins_anew_and_status_says_so_before(
    trained: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        trained("bptt", stop=1)
    installed = decide.version

    def status(*upgraded: str) -> str:
        monkeypatch.setattr(decide, "version", lambda name: "99.0" if name in upgraded else installed(name))
        config = settings.load(str(trained.tiny), None, ["train.engine=bptt", "train.epochs=3"])
        return {state.name: state.reason for state in decide.status(config, trained.store)}["train"]

    said = (
        f"training begins anew: the version before (safetensors {installed('safetensors')} → 99.0) would go on in "
        "epoch 1 of 3, but no version goes on with another one's training"
    )
    assert "anew" not in status(), "the same version goes on"
    assert "tokenize has to run first" in status("letters", "safetensors")
    assert status("letters", "safetensors").endswith(f"; {said}"), "tokenize will make what it made before"
    assert status("safetensors").endswith(f"; {said}")
    trained("bptt")
    assert trained.said() == [said]


def test_a_disk_that_cannot_take_the_note_is_named(trained: Trainings) -> None:
    trained.store.root.mkdir()
    (trained.store.root / "checkpoints").write_text("not a folder")
    with pytest.raises(StoreError, match=r"checkpoints/\w+ cannot be written \(Not a directory\): make room there"):
        trained("bptt")
