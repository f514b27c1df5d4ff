"""What is installed of each engine and what it makes of a card. The cards are made up, for no GPU is here."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.store import loaded
from stages.training import builds, cards
from stages.training.builds import Build
from stages.training.cards import Card, Driver
from stages.training.device import Device

ROOT = Path(__file__).parents[3]
HOPPER, AMPERE, ADA, KEPLER = Card("H200", (9, 0)), Card("A100", (8, 0)), Card("L4", (8, 9)), Card("K80", (3, 7))
VOLTA = Card("V100", (7, 0))
NO_DRIVER = "there is no NVIDIA driver on this machine"
MXNET = replace(builds.mxnet(), version="2.0.0b1", absent="", cuda=None)
MXNET_CUDA = replace(MXNET, version="2.0.0b1 (mxnet-cu112)", cuda=(11, 2))
TORCH = replace(builds.torch(), version="2.13.0+cpu", absent="", cuda=None, other="")
TORCH_CUDA = replace(TORCH, version="2.13.0", cuda=(13, 0), oldest=(7, 5))


def driver(*found: Card, cuda: tuple[int, int] = (13, 0)) -> Callable[[], Driver | str]:
    """One that finds these cards, or none that would be there to ask."""
    return lambda: Driver(found, cuda) if found else NO_DRIVER


def runs(build: Build, index: int) -> str:
    return ""


def fails(build: Build, index: int) -> str:
    return "OSError: libcudnn.so.8: cannot open shared object file"


def never(build: Build, index: int) -> str:
    raise AssertionError("nothing is to be probed here")


@pytest.mark.parametrize(
    ("build", "wanted", "found", "expected"),
    [
        (MXNET_CUDA, None, [AMPERE], Device("gpu", 0, "A100")),
        (MXNET_CUDA, 1, [AMPERE, ADA], Device("gpu", 1, "L4")),
        (MXNET_CUDA, None, [HOPPER, AMPERE], Device("gpu", 1, "A100")),
        (TORCH_CUDA, None, [HOPPER, AMPERE], Device("gpu", 0, "H200")),
    ],
)
def test_a_card_that_an_engine_can_use_is_found(
    build: Build, wanted: int | None, found: list[Card], expected: Device
) -> None:
    assert builds.gpu(build, wanted, driver(*found), runs) == expected


@pytest.mark.parametrize(
    ("build", "found", "probe", "said"),
    [
        (MXNET, [], never, NO_DRIVER),
        (MXNET_CUDA, [], never, NO_DRIVER),
        (MXNET, [HOPPER], never, "H200 has compute capability 9.0, and MXNet's builds hold code for 5.0 to 8.9 only"),
        (MXNET_CUDA, [HOPPER], never, "for 5.0 to 8.9 only: torch is for newer cards"),
        (
            MXNET_CUDA,
            [KEPLER],
            never,
            "K80 has compute capability 3.7, and MXNet's builds hold code for 5.0 to 8.9 only",
        ),
        (MXNET, [AMPERE], never, "MXNet has no CUDA, so it cannot use A100: install mxnet-cu112==2.0.0b1 in its place"),
        (MXNET_CUDA, [AMPERE], fails, "a training step on A100 failed with 'OSError: libcudnn.so.8"),
        (
            TORCH,
            [HOPPER],
            never,
            "torch has no CUDA, so it cannot use H200: install torch as requirements-torch.txt says",
        ),
        (
            TORCH_CUDA,
            [VOLTA],
            never,
            "V100 has compute capability 7.0, and this build of torch holds code for 7.5 and newer",
        ),
        (TORCH_CUDA, [HOPPER], fails, "a training step on H200 failed with 'OSError"),
        (replace(TORCH, absent="torch is not installed here"), [HOPPER], never, "torch is not installed here"),
        (builds.bptt(), [HOPPER], never, "bptt computes on the CPU only"),
    ],
)
def test_what_keeps_an_engine_from_a_card_is_said(build: Build, found: list[Card], probe: Any, said: str) -> None:
    obstacle = builds.gpu(build, None, driver(*found), probe)
    assert isinstance(obstacle, str)
    assert said in obstacle


def test_a_driver_that_is_too_old_is_told_from_its_version() -> None:
    said = (
        "the NVIDIA driver speaks CUDA 12.4, and this build of torch needs 13.0: install a newer driver, or a build "
        "for CUDA 12"
    )
    assert builds.gpu(TORCH_CUDA, None, driver(HOPPER, cuda=(12, 4)), never) == said
    newer = driver(HOPPER, cuda=(14, 0))
    assert builds.gpu(TORCH_CUDA, None, newer, runs) == Device("gpu", 0, "H200"), "a newer driver runs older builds"
    assert isinstance(builds.gpu(replace(TORCH_CUDA, cuda=(13, 2)), None, driver(HOPPER), runs), Device), (
        "a minor version apart they work together"
    )


def test_a_card_that_is_not_there() -> None:
    said = "there is no GPU 7: the driver names 2, counted from 0"
    assert builds.gpu(TORCH_CUDA, 7, driver(AMPERE, AMPERE), never) == said


def test_of_gpus_that_the_driver_does_not_know_a_training_step_decides() -> None:
    amd = replace(TORCH, other="ROCm")
    assert builds.gpu(amd, 1, driver(), runs) == Device("gpu", 1, "ROCm")
    assert "a training step on ROCm failed with 'OSError" in str(builds.gpu(amd, None, driver(), fails))


@pytest.mark.parametrize(
    ("installed", "version", "cuda"),
    [
        ({"mxnet": "2.0.0b1"}, "2.0.0b1", None),
        ({"mxnet-cu112": "2.0.0b1"}, "2.0.0b1 (mxnet-cu112)", (11, 2)),
        ({"mxnet": "2.0.0b1", "mxnet-cu117": "1.9.1"}, "1.9.1 (mxnet-cu117)", (11, 7)),
    ],
)
def test_mxnets_builds_are_told_by_their_names(
    installed: dict[str, str], version: str, cuda: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "versions", lambda library: installed)
    build = builds.mxnet()
    assert (build.version, build.cuda, build.absent) == (version, cuda, "")


@pytest.mark.parametrize(
    ("system", "machine", "said"),
    [
        ("linux", "x86_64", "MXNet is not installed here (requirements.txt has its version)"),
        ("linux", "aarch64", "MXNet is not installed here, and it has no wheels for linux on aarch64"),
        ("darwin", "arm64", "MXNet is not installed here, and it has no wheels for darwin on arm64"),
    ],
)
def test_where_mxnet_has_no_wheels_that_is_said(
    system: str, machine: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "versions", lambda library: {})
    build = builds.mxnet(system, machine)
    assert (build.version, build.cuda, build.absent) == ("", None, said)


VERSION = """from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '2.13.0+{build}'
debug = False
cuda: Optional[str] = {cuda}
git_version = 'cf30153c4c131c8164ee7798e5022d810682e2cb'
hip: Optional[str] = {hip}
"""
"""As torch's ``version.py`` is written."""


@pytest.mark.parametrize(
    ("build", "cuda", "hip", "expected"),
    [
        ("cpu", "None", "None", (None, "")),
        ("cu130", "'13.0'", "None", ((13, 0), "")),
        ("cu128", '"12.8"', "None", ((12, 8), "")),
        ("rocm6.4", "None", "'6.4.43482-0f2d60242'", (None, "ROCm")),
    ],
)
def test_torch_says_what_it_was_built_for_without_being_loaded(
    build: str, cuda: str, hip: str, expected: tuple[Any, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise AssertionError('it is loaded')")
    (tmp_path / "torch" / "version.py").write_text(VERSION.format(build=build, cuda=cuda, hip=hip))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(loaded, "versions", lambda library: {"torch": "2.13.0"})
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    found = builds.torch()
    assert (found.cuda, found.other, found.version) == (*expected, "2.13.0")
    assert found.oldest == ((7, 5) if cuda == "'13.0'" else (5, 0))


def test_apples_gpus_are_there_for_whoever_has_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(loaded, "versions", lambda library: {"torch": "2.13.0"})
    assert builds.torch().other == "MPS"
    monkeypatch.setattr(loaded, "versions", lambda library: {})
    assert builds.torch().other == ""


def test_this_machine_answers_without_loading_an_engine() -> None:
    code = (
        "import sys; from stages.training import builds, cards; print(bool(cards.driver())); "
        "print([build().engine for build in (builds.mxnet, builds.bptt, builds.torch)]); "
        "print({'mxnet', 'torch'} & sys.modules.keys())"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["True", "['mxnet', 'bptt', 'torch']", "set()"]


def test_the_probe_names_what_went_wrong() -> None:
    if isinstance(cards.driver(), str):
        assert "Error" in builds.probe(builds.mxnet(), 0)
