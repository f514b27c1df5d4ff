"""Somebody adds a stage between tokenize and train: three places, and everything that runs stages runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.flows.conftest import Api

ROOT = Path(__file__).parents[2]
FIVE = ["download", "tokenize", "mask", "train", "evaluate"]

STAGE = '''"""The mask stage: one token of the vocabulary becomes unknown in all of the text."""

from dataclasses import replace

import numpy as np

from data.tables.tokens import IndexTable
from data.tables.vocab import Vocab


def mask(config, *, tokens, out, progress):
    table, vocab = IndexTable.open(tokens / "tokens.arrow"), Vocab.read(tokens / "vocab.arrow")
    masked = np.array(vocab.ids([config.token]), vocab.id_type)
    ids = np.where(table.ids == masked, vocab.id_type.type(0), table.ids)
    splits = {
        name: replace(split, unknown=int((ids[split.start : split.stop] == 0).sum()))
        for name, split in table.splits.items()
    }
    replace(table, ids=ids, splits=splits).write(out / "tokens.arrow")
    vocab.write(out / "vocab.arrow")
'''
SECTION = '''class MaskConfig(StageConfig):
    """What the model never sees."""

    token: str = "q"
    """The token that becomes `<unk>`."""


class RunConfig'''
ENTRY = """Stage(
            "mask",
            "Hide a token.",
            late("stages.mask"),
            inputs={"tokens": Input("tokenize", ("tokens.arrow", "vocab.arrow"))},
            libraries=lambda config: ("numpy", "pyarrow"),
        ),
        Stage(
            "train","""

COMMANDS = """
import io, json, sys
from contextlib import redirect_stdout
from stages.cli.app import main

for command in sys.argv[1:]:
    sys.argv = ["rnnlm", *command.split(), "--preset", "tiny.toml", "--json"]
    with redirect_stdout(io.StringIO()) as said:
        try:
            main()
        except SystemExit as end:
            assert not end.code, command
    print(json.dumps(json.loads(said.getvalue())))
"""


class Clone:
    """A copy of the project with a fifth stage, a text, a preset and a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "project"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(self.project),
            "RNNLM_STORE": str(folder / "store"),
            "PREFECT_HOME": str(folder / "home"),
        }

    def edit(self, name: str, old: str, new: str, count: int = 1) -> None:
        path = self.project / name
        source = path.read_text(encoding="utf-8")
        assert old in source, f"{name} no longer has the place where a stage is added"
        path.write_text(source.replace(old, new, count), encoding="utf-8")

    def python(self, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rnnlm(self, *commands: str) -> list[Any]:
        """What these commands print, one after the other in one process."""
        return [json.loads(said) for said in self.python("-c", COMMANDS, *commands).splitlines()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, tiny_settings: str, tiny_text: str) -> Clone:
    made = Clone(tmp_path_factory.mktemp("fifth"))
    for floor in ("data", "stages", "flows"):
        ignored = shutil.ignore_patterns("artifacts", "__pycache__")
        shutil.copytree(ROOT / floor, made.project / floor, ignore=ignored)
    (made.folder / "text.txt").write_text(tiny_text, encoding="utf-8")
    (made.folder / "tiny.toml").write_text(f'[download]\ncorpus = "text.txt"\n{tiny_settings}', encoding="utf-8")

    # The three places: its own file, its section of the configuration, its entry in the graph.
    (made.project / "stages" / "mask.py").write_text(STAGE, encoding="utf-8")
    made.edit("stages/config.py", "class RunConfig", SECTION)
    made.edit(
        "stages/config.py", "    train: TrainConfig", "    mask: MaskConfig = MaskConfig()\n    train: TrainConfig"
    )
    made.edit("stages/pipeline/graph.py", 'Stage(\n            "train",', ENTRY)
    read_by_train = (
        '{"tokens": Input("%s", ("tokens.arrow", "vocab.arrow"), maybe=("merges.arrow",))},\n            sources'
    )
    made.edit("stages/pipeline/graph.py", read_by_train % "tokenize", read_by_train % "mask")
    return made


def states(run: Any) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in run["stages"]}


def test_the_pipeline_runs_it_and_caches_it(clone: Clone) -> None:
    first, again, same, other = clone.rnnlm("run", "run", "run --set mask.token=z", "run --set mask.token=s")
    assert [(stage["name"], stage["state"]) for stage in first["stages"]] == [(name, "ran") for name in FIVE]
    assert states(again) == dict.fromkeys(FIVE, "cached")
    assert states(same) == dict.fromkeys(FIVE, "cached") | {"mask": "ran"}, "no z in the text: the same bytes come out"
    assert states(other) == {
        "download": "cached",
        "tokenize": "cached",
        "mask": "ran",
        "train": "ran",
        "evaluate": "ran",
    }


def test_status_explain_and_force_know_it(clone: Clone) -> None:
    _, status, otherwise, explained, forced, alone = clone.rnnlm(
        "run", "status", "status --set mask.token=e", "explain mask --set mask.token=e", "run --force mask", "mask"
    )
    assert [stage["name"] for stage in status["stages"]] == FIVE
    reasons = {stage["name"]: stage["reason"] for stage in otherwise["stages"]}
    assert reasons["train"].startswith("mask has to run first")
    assert explained["reason"].endswith(" → e")
    assert states(forced) == dict.fromkeys(FIVE, "cached") | {"mask": "ran"}
    assert [stage["name"] for stage in alone["stages"]] == FIVE[:3]


def test_a_sweep_varies_it(clone: Clone) -> None:
    (found,) = clone.rnnlm("sweep --vary mask.token=t,a --keep 1 --jobs 1")
    assert {trial["values"]["mask.token"] for trial in found["trials"]} == {"t", "a"}
    assert {trial["state"] for trial in found["trials"]} == {"finished"}


FLOWS = """
from flows.pipeline import language_model
from flows.retrain import retrain
from stages.pipeline.settings import load
for flow, seed in ((language_model, 0), (retrain, 1), (retrain, 1), (retrain, 2)):
    state = flow(load("tiny.toml", assignments=[f"train.seed={seed}"]), return_state=True)
    print(state.name, state.state_details.flow_run_id)
"""


def test_the_flow_and_a_night_run_it(clone: Clone, api: Api) -> None:
    printed = clone.python("-c", FLOWS, PREFECT_API_URL=api.address)
    states, runs = zip(*(line.split() for line in printed.splitlines()), strict=True)
    assert states[:3] == ("Completed", "Promoted", "Unchanged")
    assert states[3] in ("Promoted", "Rejected")
    for run in runs:
        names = {task["name"].rpartition("-")[0] for task in api.task_runs(run)}
        assert names - {"guard", "judge"} == set(FIVE)
