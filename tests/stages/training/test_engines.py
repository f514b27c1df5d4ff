"""Which engine is chosen, and that choosing loads none."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from data.store import fingerprint
from data.store.folder import Store
from stages.config import TrainConfig
from stages.lm.parameters import Architecture
from stages.pipeline import run as pipeline
from stages.pipeline.decide import decide
from stages.pipeline.graph import STAGES
from stages.pipeline.settings import load
from stages.training import device, engines
from stages.training.device import Device
from stages.training.engine import Recipe

ROOT = Path(__file__).parents[3]
SMALLEST = Recipe(architecture=Architecture("rnn", "relu", 2, 1, 3), batch_size=1, optimizer="sgd")


def test_the_cpu_by_name_is_nothing_to_talk_about(caplog: pytest.LogCaptureFixture) -> None:
    choice = engines.choose(TrainConfig(device="cpu"))
    assert (choice.name, choice.device, choice.reason) == ("mxnet", Device("cpu"), "")
    assert (choice.modules, choice.libraries) == (("stages.training.gluon",), ("mxnet",))
    with caplog.at_level(logging.INFO):
        choice.build(SMALLEST)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((Device("cpu"), "MXNet is not installed"), "training on the CPU: MXNet is not installed"),
        ((Device("gpu", 1, "L4"), ""), "training on the GPU 1: L4"),
    ],
)
def test_what_was_found_is_said_in_one_line(
    found: tuple[Device, str], said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "resolve", lambda name: found)
    choice = engines.choose(TrainConfig())
    assert (choice.device, choice.reason) == (found[0], said)
    if found[0].kind == "cpu":
        with caplog.at_level(logging.INFO):
            choice.build(SMALLEST)
        assert [record.getMessage() for record in caplog.records] == [said]


def test_choosing_loads_no_engine() -> None:
    code = (
        "import sys; from stages.config import TrainConfig; from stages.training import engines; "
        "print(engines.choose(TrainConfig()).name, 'mxnet' in sys.modules, 'stages.training.gluon' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "mxnet False False"


def test_an_engine_is_in_the_key_of_what_it_trains_and_what_chooses_it_in_none() -> None:
    stage = STAGES["train"]
    own = set(fingerprint.code(stage.function.__module__))
    whole = set(fingerprint.code(stage.function.__module__, *stage.modules(TrainConfig(device="cpu"))))
    assert whole - own == {"stages/training/gluon.py"}
    assert not whole & {f"stages/training/{name}.py" for name in ("engines", "device", "cores")}


def test_another_engines_code_and_libraries_are_in_no_key_of_this_one(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, store = load(str(tiny)), Store(tiny.parent / "store")
    *_, tokens = pipeline.run(config, store, lambda stage: lambda *call: None, until="tokenize")
    upstream = {"tokenize": tokens.artifact}
    mxnet = decide("train", config, upstream, store)
    other = replace(engines.choose(config.train), modules=("stages.training.adaptation",), libraries=("pillow",))
    monkeypatch.setattr(engines, "choose", lambda config: other)
    components = decide("train", config, upstream, store).components
    assert components["code"].keys() ^ mxnet.components["code"].keys() == {
        "stages/training/adaptation.py",
        "stages/training/gluon.py",
    }
    assert components["libraries"].keys() ^ mxnet.components["libraries"].keys() == {"mxnet", "pillow"}
