"""The acceptance on a card runs with NumPy and PyTorch alone, says what fails, and takes the stages' own steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from data.tables.tokens import IndexTable
from stages.config import TrainConfig
from stages.pipeline import settings
from stages.tokenize import tokenize
from stages.training.engine import EngineState, Figures, Recipe, Step
from stages.training.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

    from stages.training.minibatches import Minibatch

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "corpus" / "sample.txt"
# A process that has neither the libraries of the stages nor this program installed, and a trial of seconds.
CHILD = """
import sys
absent = "pydantic safetensors pyarrow httpx yaml typer rich threadpoolctl mxnet"
sys.modules.update(dict.fromkeys(absent.split()))
from tests import acceptance
from tests.card.preset import training_text
from tests.card.table import CPU, Trial
content, vocab_size = training_text(acceptance.Path(sys.argv[1]))
trial = Trial(device=CPU, content=content, vocab_size=vocab_size, epochs=2, hidden=8, steps=12, tokens=2000, rounds=1)
def broken(trial, table):
    "What does not hold"
    table.require(False, "a figure", "2", "at most 1")
    raise RuntimeError("what nobody expected")
"""


def child(script: str) -> tuple[int, str]:
    """Exit code of a process, and what it printed."""
    pytest.importorskip("torch", reason="the engine torch is not installed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", CHILD + script, str(SAMPLE)]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=300)
    assert not done.stderr
    return done.returncode, done.stdout


def test_every_part_runs_with_numpy_and_torch_alone() -> None:
    code, table = child("raise SystemExit(acceptance.accept(trial))")
    assert code == 0, table
    assert len(re.findall("^ok ", table, re.MULTILINE)) > 30
    assert not re.findall("^(failed|behind) ", table, re.MULTILINE)


def test_what_does_not_hold_is_said_and_the_next_part_runs() -> None:
    code, table = child("raise SystemExit(acceptance.accept(trial, broken, acceptance.machine))")
    assert code == 1
    failed = re.findall("^failed .*", table, re.MULTILINE)
    assert [re.split("  +", line)[2] for line in failed] == ["a figure", "this part ended with an error"]
    assert "RuntimeError: what nobody expected" in table
    assert table.index("What does not hold") < table.index("What there is")


def test_a_text_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the engine torch is not installed")
    text = tmp_path / "latin.txt"
    text.write_bytes(b"caf\xe9")
    command = [sys.executable, "-P", str(ROOT / "tests" / "acceptance.py"), str(text)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{text} is not UTF-8 text (see byte 3): convert it to UTF-8 first\n"


@pytest.fixture
def preset(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that stands in for what needs libraries."""
    monkeypatch.syspath_prepend(ROOT)
    from tests.card import preset

    return preset


@pytest.mark.parametrize("name", ["book", "shakespeare"])
def test_settings_are_the_configurations(preset: ModuleType, name: str) -> None:
    expected = settings.load(name, assignments=["train.epochs=3"]).train.model_dump()
    assert vars(preset.settings(name, epochs=3)) == expected


def test_the_text_is_what_tokenize_makes_of_it(preset: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_bytes(SAMPLE.read_bytes())
    config = settings.load("book").tokenize
    tokenize(config, corpus=tmp_path, out=tmp_path, progress=lambda done, total, figures: None)
    table = IndexTable.open(tmp_path / "tokens.arrow")
    ids, vocab_size = preset.training_text(SAMPLE)
    np.testing.assert_array_equal(ids, table.split("train"))
    assert vocab_size == table.vocab_size


class Recorder:
    """An engine that keeps the steps it is given."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def run(self, steps: Iterable[Step]) -> list[Figures]:
        before = len(self.steps)
        self.steps += steps
        return [Figures(1.0, 1.0)] * (len(self.steps) - before)

    def loss(self, minibatches: Sequence[Minibatch]) -> float:
        return 1.0

    def state(self) -> EngineState:
        return self._state

    def restore(self, state: EngineState) -> None:
        self._state = state


@pytest.mark.parametrize("changes", [{}, {"partition": "random", "schedule": "cosine", "output_dropout": 0.5}], ids=str)
def test_steps_are_the_loops(preset: ModuleType, changes: dict[str, object], tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 5, 300).astype(np.uint8)
    config = TrainConfig.model_validate({"hidden_size": 3, "batch_size": 4, "num_steps": 6, "epochs": 3, **changes})
    recorder = Recorder()
    loop = Loop(config, Recipe.of(config, 5), recorder, ids, ids[:0], tmp_path)  # type: ignore[arg-type]
    loop.run(lambda done, total, figures: None, [])
    epochs = preset.epochs(config, ids, 5)
    expected = [step for _ in range(3) for step in next(epochs)]
    assert [told(step) for step in recorder.steps] == [told(step) for step in expected]


def told(step: Step) -> dict[str, object]:
    """All of a step, so that two compare."""
    arrays = {"inputs": step.inputs, "targets": step.targets, **step.masks}
    return {**vars(step), "masks": None} | {name: array.tolist() for name, array in arrays.items()}
