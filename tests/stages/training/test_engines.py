"""Which engine is chosen, and that choosing loads none."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from stages.config import TrainConfig
from stages.lm.parameters import Architecture
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
