"""Which engine is chosen and on which device, what is said about it, and that choosing loads none."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.errors import DeviceError
from data.store import fingerprint
from data.store.folder import Store
from stages.config import TrainConfig
from stages.lm.parameters import Architecture
from stages.pipeline import run as pipeline
from stages.pipeline.decide import decide
from stages.pipeline.graph import STAGES
from stages.pipeline.settings import load
from stages.training import builds, cores, engines
from stages.training.builds import Build
from stages.training.cards import Card, Driver
from stages.training.device import Device
from stages.training.engine import Recipe

ROOT = Path(__file__).parents[3]
SMALLEST = Recipe(architecture=Architecture("rnn", "relu", 2, 1, 3), batch_size=1, optimizer="sgd")
HOPPER, AMPERE = Card("H200", (9, 0)), Card("A100", (8, 0))
NO_DRIVER = "there is no NVIDIA driver on this machine"
NO_MXNET, NO_TORCH = "MXNet is not installed here", "torch is not installed here"

INSTALLED = {
    "mxnet": replace(builds.mxnet(), version="2.0.0b1", absent="", cuda=None),
    "bptt": builds.bptt(),
    "torch": replace(builds.torch(), version="2.13.0+cpu", absent="", cuda=None, other=""),
}
"""All engines, none with CUDA."""
MXNET_CUDA = replace(INSTALLED["mxnet"], cuda=(11, 2))
TORCH_CUDA = replace(INSTALLED["torch"], cuda=(13, 0))
MXNET_ABSENT = replace(INSTALLED["mxnet"], version="", absent=NO_MXNET)
TORCH_ABSENT = replace(INSTALLED["torch"], version="", absent=NO_TORCH)


def chosen(
    engine: str, device: str, *found: Card, there: Mapping[str, Build] = INSTALLED, failing: str = ""
) -> tuple[str, str, str]:
    """Engine, device and reason, with these cards here and some builds in place of those of `INSTALLED`."""
    choice = engines.decide(
        engine,
        device,
        {**INSTALLED, **there},
        lambda: Driver(found, (13, 0)) if found else NO_DRIVER,
        lambda build, index: "" if build.engine != failing else "RuntimeError: out of memory",
    )
    return choice.name, str(choice.device), choice.reason


CPU, GPU = "the CPU", "the GPU 0"


@pytest.mark.parametrize(
    ("engine", "device", "expected", "said"),
    [
        ("auto", "auto", ("mxnet", CPU), f"training with mxnet on the CPU: {NO_DRIVER}"),
        ("auto", "cpu", ("mxnet", CPU), "training with mxnet on the CPU"),
        ("mxnet", "auto", ("mxnet", CPU), f"training with mxnet on the CPU: {NO_DRIVER}"),
        ("mxnet", "cpu", ("mxnet", CPU), ""),
        ("bptt", "auto", ("bptt", CPU), "training with bptt on the CPU: bptt computes on the CPU only"),
        ("bptt", "cpu", ("bptt", CPU), ""),
        ("torch", "auto", ("torch", CPU), f"training with torch on the CPU: {NO_DRIVER}"),
        ("torch", "cpu", ("torch", CPU), ""),
    ],
)
def test_without_a_card(engine: str, device: str, expected: tuple[str, str], said: str) -> None:
    assert chosen(engine, device) == (*expected, said)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("auto", f"training with bptt on the CPU: {NO_DRIVER}; {NO_MXNET}"),
        ("cpu", f"training with bptt on the CPU: {NO_MXNET}"),
    ],
)
def test_without_mxnet_either_it_is_bptt_and_torch_only_by_name(device: str, said: str) -> None:
    assert chosen("auto", device, there={"mxnet": MXNET_ABSENT}) == ("bptt", CPU, said)


@pytest.mark.parametrize(
    ("engine", "device", "card", "there", "expected"),
    [
        ("auto", "auto", AMPERE, {"mxnet": MXNET_CUDA}, ("mxnet", GPU, "training with mxnet on the GPU 0: A100")),
        ("auto", "gpu", AMPERE, {"mxnet": MXNET_CUDA}, ("mxnet", GPU, "training with mxnet on the GPU 0: A100")),
        ("auto", "auto", HOPPER, {"torch": TORCH_CUDA}, ("torch", GPU, "training with torch on the GPU 0: H200")),
        ("torch", "auto", HOPPER, {"torch": TORCH_CUDA}, ("torch", GPU, "training with torch on the GPU 0: H200")),
        ("torch", "gpu:0", HOPPER, {"torch": TORCH_CUDA}, ("torch", GPU, "")),
        # Both can: torch, for the reason that stands at ON_A_GPU.
        (
            "auto",
            "auto",
            AMPERE,
            {"mxnet": MXNET_CUDA, "torch": TORCH_CUDA},
            ("torch", GPU, "training with torch on the GPU 0: A100"),
        ),
        (
            "mxnet",
            "auto",
            AMPERE,
            {"mxnet": MXNET_CUDA, "torch": TORCH_CUDA},
            ("mxnet", GPU, "training with mxnet on the GPU 0: A100"),
        ),
        ("auto", "cpu", HOPPER, {"torch": TORCH_CUDA}, ("mxnet", CPU, "training with mxnet on the CPU")),
        (
            "bptt",
            "auto",
            HOPPER,
            {"torch": TORCH_CUDA},
            ("bptt", CPU, "training with bptt on the CPU: bptt computes on the CPU only"),
        ),
    ],
)
def test_with_a_card(
    engine: str, device: str, card: Card, there: dict[str, Build], expected: tuple[str, str, str]
) -> None:
    assert chosen(engine, device, card, there=there) == expected


def test_auto_goes_on_to_the_engine_that_can_when_the_first_cannot() -> None:
    both = {"mxnet": MXNET_CUDA, "torch": TORCH_CUDA}
    assert chosen("auto", "auto", AMPERE, there=both, failing="torch")[:2] == ("mxnet", GPU)


def test_a_card_that_nobody_can_use_is_spoken_of_in_one_line() -> None:
    assert chosen("auto", "auto", HOPPER, there={"mxnet": MXNET_CUDA, "torch": TORCH_ABSENT}) == (
        "mxnet",
        CPU,
        f"training with mxnet on the CPU: {NO_TORCH}; H200 has compute capability 9.0, and MXNet's builds hold code "
        "for 5.0 to 8.9 only: torch is for newer cards",
    )
    assert chosen("auto", "auto", HOPPER, there={"mxnet": MXNET_ABSENT, "torch": TORCH_ABSENT}) == (
        "bptt",
        CPU,
        f"training with bptt on the CPU: {NO_TORCH}; {NO_MXNET}",
    )


@pytest.mark.parametrize(
    ("engine", "device", "there", "said"),
    [
        (
            "bptt",
            "gpu",
            {},
            "train.device = gpu cannot be used: bptt computes on the CPU only; train.device = cpu trains",
        ),
        (
            "torch",
            "gpu",
            {},
            "train.device = gpu cannot be used: this build of torch has no CUDA, so it cannot use H200",
        ),
        ("torch", "gpu:7", {"torch": TORCH_CUDA}, "gpu:7 cannot be used: there is no GPU 7: the driver names 1"),
        (
            "auto",
            "gpu:7",
            {"torch": TORCH_CUDA},
            "gpu:7 cannot be used: there is no GPU 7: the driver names 1, counted from 0; train",
        ),
        ("mxnet", "gpu", {"mxnet": MXNET_CUDA}, "train.device = gpu cannot be used: H200 has compute capability 9.0"),
        (
            "mxnet",
            "auto",
            {"mxnet": MXNET_ABSENT},
            f"train.engine = mxnet cannot be used: {NO_MXNET}; train.engine = bptt trains without it",
        ),
        (
            "torch",
            "cpu",
            {"torch": TORCH_ABSENT},
            f"train.engine = torch cannot be used: {NO_TORCH}; train.engine = bptt trains without it",
        ),
        ("mxnet", "gpu", {"mxnet": MXNET_ABSENT}, f"train.engine = mxnet cannot be used: {NO_MXNET}"),
    ],
)
def test_what_is_asked_for_by_name_and_cannot_be_had_is_a_sentence(
    engine: str, device: str, there: dict[str, Build], said: str
) -> None:
    with pytest.raises(DeviceError) as caught:
        chosen(engine, device, HOPPER, there=there)
    assert said in str(caught.value)


def test_a_gpu_that_no_engine_can_use_is_refused_with_the_reason_of_each() -> None:
    with pytest.raises(DeviceError) as caught:
        chosen("auto", "gpu", HOPPER, there={"torch": TORCH_ABSENT})
    assert str(caught.value) == (
        f"train.device = gpu cannot be used: {NO_TORCH}; H200 has compute capability 9.0, and MXNet's builds hold code "
        "for 5.0 to 8.9 only: torch is for newer cards; train.device = cpu trains without a GPU"
    )


def test_other_gpus_than_nvidias_are_for_whoever_asks() -> None:
    amd = replace(INSTALLED["torch"], other="ROCm")
    said = f"training with mxnet on the CPU: ROCm is used where train.engine = torch asks for it; {NO_DRIVER}"
    assert chosen("auto", "auto", there={"torch": amd}) == ("mxnet", CPU, said)
    assert chosen("torch", "auto", there={"torch": amd}) == ("torch", GPU, "training with torch on the GPU 0: ROCm")
    assert chosen("auto", "gpu", there={"torch": amd})[:2] == ("torch", GPU)


def test_nothing_is_asked_of_the_driver_where_the_cpu_is_named() -> None:
    def never(*asked: Any) -> Any:
        raise AssertionError(asked)

    for engine in ("auto", *INSTALLED):
        assert engines.decide(engine, "cpu", INSTALLED, never, never).device == Device("cpu")
    assert engines.decide("bptt", "auto", INSTALLED, never, never).device == Device("cpu")


@pytest.mark.skipif(bool(engines.installed()["mxnet"].absent), reason="MXNet is not installed")
def test_mxnet_finds_its_number_of_threads_while_it_is_loaded_and_no_trace_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any, target: Any = None) -> None:
            if name == "stages.training.gluon":
                seen.append(os.environ["OMP_NUM_THREADS"])

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "suited", lambda architecture: 3)
    monkeypatch.delitem(sys.modules, "stages.training.gluon", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    engines.choose(TrainConfig(engine="mxnet", device="cpu")).build(SMALLEST)
    assert seen == ["3"]
    assert "OMP_NUM_THREADS" not in os.environ


def test_choosing_loads_no_engine() -> None:
    code = (
        "import sys; from stages.config import TrainConfig; from stages.training import engines; "
        "engines.choose(TrainConfig()); loaded = {build.module for build in engines.installed().values()}; "
        "print((loaded | {'mxnet', 'torch'}) & sys.modules.keys())"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "set()"


def test_what_was_chosen_is_said_in_one_line(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, config = Store(tiny.parent / "store"), load(str(tiny), None, ["train.engine=auto"])
    with caplog.at_level(logging.INFO, "stages"):
        list(pipeline.run(config, store, lambda stage: lambda *call: None, until="train"))
    said = [message for message in caplog.messages if message.startswith("training with")]
    assert said == [engines.choose(TrainConfig()).reason]


@pytest.mark.parametrize("engine", ["mxnet", "bptt", "torch"])
def test_an_engine_is_in_the_key_of_what_it_trains_and_what_chooses_it_in_none(engine: Any) -> None:
    stage = STAGES["train"]
    [module] = modules = (INSTALLED[engine].module,)
    own = set(fingerprint.code(stage.function.__module__))
    whole = set(fingerprint.code(stage.function.__module__, *modules))
    assert whole - own == {f"{module.replace('.', '/')}.py"}
    assert not whole & {f"stages/training/{name}.py" for name in ("engines", "builds", "cards", "device", "cores")}


def test_another_engines_code_and_libraries_are_in_no_key_of_this_one(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, store = load(str(tiny)), Store(tiny.parent / "store")
    *_, tokens = pipeline.run(config, store, lambda stage: lambda *call: None, until="tokenize")
    upstream = {"tokenize": tokens.artifact}
    first = decide("train", config, upstream, store)
    choice = engines.choose(config.train)
    other = replace(choice, modules=("stages.training.cards",), libraries=("pillow",))
    monkeypatch.setattr(engines, "choose", lambda config: other)
    components = decide("train", config, upstream, store).components
    assert components["code"].keys() ^ first.components["code"].keys() == {
        "stages/training/cards.py",
        f"{choice.modules[0].replace('.', '/')}.py",
    }
    assert components["libraries"].keys() ^ first.components["libraries"].keys() == {"pillow", *choice.libraries} - {
        "numpy"
    }
