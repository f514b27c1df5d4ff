"""Which device is chosen, and what is said about it. The cards are made up, for no GPU is here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data.errors import DeviceError
from stages.training import device
from stages.training.device import Card, Device

ROOT = Path(__file__).parents[3]
HOPPER, AMPERE, ADA, KEPLER = Card("H200", (9, 0)), Card("A100", (8, 0)), Card("L4", (8, 9)), Card("K80", (3, 7))
CUDA, PLAIN = "mxnet-cu112", "mxnet"
NO_DRIVER = "there is no NVIDIA driver on this machine"


def runs(index: int) -> str:
    return ""


def fails(index: int) -> str:
    return "OSError: libcudnn.so.8: cannot open shared object file"


def never(index: int) -> str:
    raise AssertionError("nothing is to be probed here")


@pytest.mark.parametrize(
    ("wanted", "cards", "expected"),
    [
        ("auto", [AMPERE], Device("gpu", 0, "A100")),
        ("gpu", [ADA], Device("gpu", 0, "L4")),
        ("gpu:1", [AMPERE, ADA], Device("gpu", 1, "L4")),
        ("auto", [HOPPER, AMPERE], Device("gpu", 1, "A100")),
    ],
)
def test_a_card_that_can_be_used_is(wanted: str, cards: list[Card] | str, expected: Device) -> None:
    assert device.choose(wanted, CUDA, cards, runs) == (expected, "")


@pytest.mark.parametrize(
    ("build", "cards", "probe", "said"),
    [
        (PLAIN, NO_DRIVER, never, "this MXNet build has no CUDA"),
        (PLAIN, [HOPPER], never, "H200 has compute capability 9.0, and MXNet's builds hold code for 5.0 to 8.9 only"),
        (CUDA, [HOPPER], never, "H200 has compute capability 9.0"),
        (CUDA, [KEPLER], never, "K80 has compute capability 3.7"),
        (PLAIN, [AMPERE], never, "cannot use A100: install mxnet-cu112==2.0.0b1 in its place"),
        (CUDA, NO_DRIVER, never, NO_DRIVER),
        (CUDA, [AMPERE], fails, "A100 failed with 'OSError: libcudnn.so.8"),
    ],
)
def test_without_one_auto_is_the_cpu_and_gpu_an_error_that_says_why(
    build: str, cards: list[Card] | str, probe: Callable[[int], str], said: str
) -> None:
    chosen, obstacle = device.choose("auto", build, cards, probe)
    assert chosen == Device("cpu")
    assert said in obstacle
    with pytest.raises(DeviceError, match=r"train\.device = cpu trains without a GPU") as caught:
        device.choose("gpu", build, cards, probe)
    assert said in str(caught.value) or NO_DRIVER in str(caught.value)


def test_a_card_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="gpu:2 cannot be used: there is no GPU 2: the driver names 2"):
        device.choose("gpu:2", CUDA, [AMPERE, AMPERE], runs)


def test_cpu_is_the_cpu_whatever_is_there() -> None:
    assert device.choose("cpu", CUDA, [AMPERE], never) == (Device("cpu"), "") == device.resolve("cpu")


def test_this_machine_answers_without_loading_mxnet() -> None:
    code = (
        "import sys; from stages.training import device; found, _ = device.resolve('auto'); "
        "print(found.kind, device.build_version(), 'mxnet' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kind, *_, version, loaded = said.split()
    assert kind in ("cpu", "gpu")
    assert version.startswith("2.")
    assert loaded == "False"


def test_the_probe_names_what_went_wrong() -> None:
    if device.resolve("auto")[0].kind == "gpu":
        assert device.probe(0) == ""
    else:
        assert "Error" in device.probe(0)
