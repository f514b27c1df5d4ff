"""A walk over the graph: what changes under it, and what it leaves behind."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data import memory
from data.errors import CorpusError, TrainingError
from data.store import fingerprint
from data.store.folder import Store
from stages.config import RunConfig
from stages.pipeline import graph, run, settings
from stages.pipeline.decide import Decision, decide
from stages.pipeline.run import Outcome, perform

if TYPE_CHECKING:
    from tests.conftest import Rnnlm


def silent(done: float, total: float, figures: str) -> None:
    """No progress is shown."""


@pytest.fixture
def place(tiny: Path) -> tuple[RunConfig, Store]:
    return settings.load(str(tiny)), Store(tiny.parent / "store")


def download(place: tuple[RunConfig, Store]) -> Outcome:
    config, store = place
    return perform("download", config, {}, store, silent)


def test_a_corpus_that_changes_while_it_is_read_is_not_published(
    place: tuple[RunConfig, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, store = place
    stage, corpus = graph.STAGES["download"], Path(config.download.corpus)

    def edited(*arguments: Any, **named: Any) -> None:
        stage.function(*arguments, **named)
        corpus.write_text(corpus.read_text(encoding="utf-8") + "One more line.\n", encoding="utf-8")

    monkeypatch.setitem(graph.STAGES, "download", replace(stage, function=edited))
    with pytest.raises(CorpusError, match=rf"^{corpus} was changed while it was read: run again$"):
        download(place)
    assert store.artifacts() == []
    assert not list(store.root.glob("tmp/*"))
    monkeypatch.undo()
    assert download(place).state == "ran"


def test_a_stage_that_finds_no_memory_says_so(place: tuple[RunConfig, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    def large(*arguments: Any, **named: Any) -> None:
        raise MemoryError("Unable to allocate 12 GiB")

    monkeypatch.setitem(graph.STAGES, "download", replace(graph.STAGES["download"], function=large))
    with pytest.raises(TrainingError, match=r"^download: this machine has too little memory for that \(Unable to a"):
        download(place)
    assert not list(place[1].root.glob("tmp/*"))


@pytest.mark.parametrize(
    ("bytes_there", "says"),
    [(5_000, "the model would need .* a smaller train.hidden_size"), (30_000, "a minibatch .* train.batch_size")],
)
def test_a_training_that_the_machine_cannot_hold_is_not_begun(
    bytes_there: int, says: str, trained: Path, here: Rnnlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: bytes_there)
    settings = ["--set", "train.num_steps=64", "--set", "train.batch_size=8"]
    assert re.search(says, here("train", "--preset", trained, *settings, code=2).stderr)


def test_a_corpus_that_changes_while_another_process_has_the_lock_is_noticed(
    place: tuple[RunConfig, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Decision] = []

    def look(*arguments: Any) -> Decision:
        decision = decide(*arguments)
        if looks:
            other = {**decision.components, "sources": {"corpus": "sha256:other"}}
            decision = replace(decision, key="0" * 64, components=other)
        looks.append(decision)
        return decision

    monkeypatch.setattr(run, "decide", look)
    with pytest.raises(CorpusError, match=r"text.txt was changed while it was read: run again$"):
        download(place)
    assert len(looks) == 2
    assert place[1].artifacts() == []


def test_a_clone_that_git_cannot_read_is_no_obstacle(
    place: tuple[RunConfig, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert download(place).artifact.manifest.git is None


def test_a_clone_that_git_refuses_is_said_to_be_one(
    place: tuple[RunConfig, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clone = tmp_path / "clone"
    (clone / ".git").mkdir(parents=True)  # which is none of git's own
    (clone / "pyproject.toml").touch()
    monkeypatch.setattr("data.store.fingerprint.ROOT", clone)
    run._say_once.cache_clear()
    assert download(place).artifact.manifest.git is None
    assert "manifests will not name the commit, for git does not tell it (fatal: " in caplog.text


def test_looking_at_a_clone_writes_nothing_into_it(
    place: tuple[RunConfig, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a process that is killed meanwhile leaves git's lock there, and the user's next `git add` fails."""
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "pyproject.toml").touch()
    git = ["git", "-C", str(clone), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "one"]):
        subprocess.run([*git, *command], check=True)
    os.utime(clone / "pyproject.toml", (0, 0))  # so that git would like to note that it is the same all the same
    before = (clone / ".git" / "index").stat().st_mtime_ns
    monkeypatch.setattr(fingerprint, "ROOT", clone)
    commit = download(place).artifact.manifest.git
    assert commit is not None
    assert commit["dirty"] is False
    assert (clone / ".git" / "index").stat().st_mtime_ns == before
