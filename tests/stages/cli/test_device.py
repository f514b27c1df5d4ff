"""What is said of a machine's GPUs and of the engines on it; most of the GPUs are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from subprocess import CompletedProcess
from typing import Any

from stages.cli.device import looked, told
from stages.config import TrainConfig
from stages.training import builds, cards, engines
from stages.training.builds import Build
from stages.training.cards import Card, Driver

BUILDS = [
    replace(builds.mxnet(), version="2.0.0b1 (mxnet-cu112)", absent="", cuda=(11, 2)),
    replace(builds.bptt(), version="2.4.6"),
    replace(builds.torch(), version="2.13.0", absent="", cuda=(13, 0), other=""),
]
CARDS = Driver((Card("H200", (9, 0)), Card("L4", (8, 9))), (13, 0))
AUTO = {"auto": {"engine": "torch", "device": "gpu", "reason": "training with torch on the GPU 1: L4"}}


def probe(build: Build, index: int) -> str:
    """A card that is taken."""
    return "" if index else "RuntimeError: out of memory"


def test_each_card_and_each_engine_has_its_line() -> None:
    assert list(told({**looked(BUILDS, lambda: CARDS, probe), **AUTO})) == [
        "GPU 0  H200, compute capability 9.0",
        "GPU 1  L4, compute capability 8.9",
        "mxnet  MXNet 2.0.0b1 (mxnet-cu112), built for CUDA 11.2; uses the GPU 1; H200 has compute capability 9.0, and "
        "MXNet's builds hold code for 5.0 to 8.9 only: torch is for newer cards",
        "bptt   NumPy 2.4.6, built for the CPU; bptt computes on the CPU only",
        "torch  torch 2.13.0, built for CUDA 13.0; uses the GPU 1; a training step on H200 failed with 'RuntimeError: "
        "out of memory'",
        "auto   torch on the GPU 1: L4",
    ]


def test_what_is_not_installed_says_so_once() -> None:
    absent = replace(BUILDS[0], version="", absent="MXNet is not installed here", cuda=None)
    lines = list(told({**looked([absent], lambda: CARDS, probe), **AUTO}))
    assert lines[2:-1] == ["mxnet  MXNet is not installed here"]


def test_without_a_card_nothing_is_tried() -> None:
    def never(build: Build, index: int) -> str:
        raise AssertionError(build)

    found = looked(BUILDS, lambda: "there is no NVIDIA driver on this machine", never)
    assert list(told({**found, **AUTO}))[:-1] == [
        "GPU    there is no NVIDIA driver on this machine",
        "mxnet  MXNet 2.0.0b1 (mxnet-cu112), built for CUDA 11.2",
        "bptt   NumPy 2.4.6, built for the CPU",
        "torch  torch 2.13.0, built for CUDA 13.0",
    ]


def test_a_gpu_that_is_not_nvidias_is_tried() -> None:
    amd = replace(BUILDS[2], cuda=None, other="ROCm")
    [found] = looked([amd], lambda: "there is no NVIDIA driver on this machine", lambda build, index: "")["engines"]
    assert (found["built_for"], found["gpus"], found["obstacles"]) == ("ROCm", [0], [])


def test_of_this_machine(here: Callable[..., CompletedProcess[str]]) -> None:
    driver, choice = cards.driver(), engines.choose(TrainConfig())
    found: dict[str, Any] = json.loads(here("device", "--json").stdout)
    assert len(found["cards"]) == (0 if isinstance(driver, str) else len(driver.cards))
    assert [one["engine"] for one in found["engines"]] == ["mxnet", "bptt", "torch"]
    assert found["auto"] == {"engine": choice.name, "device": choice.device.kind, "reason": choice.reason}
    assert here("device").stdout.splitlines()[-1] == f"auto   {choice.reason.removeprefix('training with ')}"
