"""What is installed of each engine, and which GPUs it can use: what people know of an engine without loading it.

It is read from the names, versions and text of what is installed, and from the driver. Where all of that allows a GPU,
a training step on it, in a process of its own, has the last word.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data.store import loaded
from stages.training.cards import dotted
from stages.training.device import Device

if TYPE_CHECKING:
    from collections.abc import Callable

    from stages.training.cards import Card, Driver

    Probe = Callable[["Build", int], str]
    """Trains one step on the GPU of that number; empty when it ran, else what went wrong."""

Name = Literal["mxnet", "bptt", "torch"]
"""Of an engine, as ``train.engine`` has it."""
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Build:
    """An engine as it is installed here."""

    engine: Name
    title: str
    """What its library is called, such as ``MXNet``."""
    module: str
    """Of this project: the engine's code, which with all that it imports belongs into the key."""
    library: str
    """Whose numerics the result depends on: its version belongs into the key."""
    version: str
    """Of the library; empty where it is not installed."""
    absent: str = ""
    """That it is not installed, and what to do about it; empty where it is."""
    cuda: tuple[int, int] | None = None
    """The version of CUDA that it was built for; None where it was built for none."""
    oldest: tuple[int, int] = (0, 0)
    """The oldest compute capability that its builds hold code for."""
    newest: tuple[int, int] | None = None
    """The newest; None where no card is too new."""
    remedy: str = ""
    """How to get a build for CUDA."""
    other: str = ""
    """GPUs that it was built for and that the NVIDIA driver knows nothing of: ``ROCm`` or ``MPS``."""


def mxnet(system: str = sys.platform, machine: str = "") -> Build:
    """MXNet: its builds share one import package, not one name, and a build for GPUs is called mxnet-cu112 or so."""
    versions, machine = loaded.versions("mxnet"), machine or platform.machine()
    absent = "MXNet is not installed here"
    if (system, machine) in (("linux", "x86_64"), ("darwin", "x86_64")):
        absent += " (requirements.txt has its version)"
    else:
        absent += f", and it has no wheels for {system} on {machine}"
    found = re.search(r"mxnet-cu(\d+)(\d)", " ".join(versions))
    return Build(
        engine="mxnet",
        title="MXNet",
        module="stages.training.gluon",
        library="mxnet",
        version=loaded.version("mxnet"),
        absent="" if versions else absent,
        cuda=(int(found[1]), int(found[2])) if found else None,
        # Machine code for sm_50 … sm_86, and no PTX that a newer card could compile for itself.
        oldest=(5, 0),
        newest=(8, 9),
        remedy="install mxnet-cu112==2.0.0b1 in its place",
    )


def bptt() -> Build:
    """Backpropagation through time in NumPy, which is on every machine and knows no GPU."""
    return Build(
        engine="bptt",
        title="NumPy",
        module="stages.training.bptt",
        library="numpy",
        version=loaded.version("numpy"),
    )


def torch() -> Build:
    """PyTorch: what its build was made for stands in its ``version.py``."""
    version = loaded.version("torch")
    made_for = _made_for(_version_text()) if version else {}
    cuda = re.match(r"(\d+)\.(\d+)", made_for.get("cuda", ""))
    apple = (sys.platform, platform.machine()) == ("darwin", "arm64")
    return Build(
        engine="torch",
        title="torch",
        module="stages.training.torch",
        library="torch",
        version=version,
        absent="" if version else "torch is not installed here (requirements-torch.txt says how)",
        cuda=(int(cuda[1]), int(cuda[2])) if cuda else None,
        oldest=(7, 5) if cuda and int(cuda[1]) >= 13 else (5, 0),  # CUDA 13 has dropped all before Turing
        remedy="install torch as requirements-torch.txt says",
        other="ROCm" if made_for.get("hip") else "MPS" if version and apple else "",
    )


def _version_text() -> str:
    """The file in which torch says what it was built for; empty where it has none."""
    spec = find_spec("torch")
    path = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    return path.read_text(encoding="utf-8") if path and path.is_file() else ""


def _made_for(text: str) -> dict[str, str]:
    """``cuda: Optional[str] = '13.0'`` → {"cuda": "13.0"}, of each name that is a string."""
    return dict(re.findall(r"^(\w+)\b[^=\n]*= *['\"]([^'\"\n]*)['\"]", text, re.MULTILINE))


def gpu(build: Build, wanted: int | None, driver: Callable[[], Driver | str], probe: Probe) -> Device | str:
    """The GPU that an engine can use, or why there is none.

    Args:
        build: the engine.
        wanted: the number of the GPU; None is the first that can be used.
        driver: asks the NVIDIA driver for its GPUs.
        probe: whose word is the last.
    """
    if build.engine == "bptt":
        return "bptt computes on the CPU only"
    if build.other:
        failure = probe(build, wanted or 0)
        return _failed(build.other, failure) if failure else Device("gpu", wanted or 0, build.other)
    there = driver()
    if isinstance(there, str):
        return there
    cards = there.cards
    if wanted is not None and wanted >= len(cards):
        return f"there is no GPU {wanted}: the driver names {len(cards)}, counted from 0"
    faults = []
    for index in range(len(cards)) if wanted is None else (wanted,):
        fault = _fault(build, cards[index], there) or _failed(cards[index].name, probe(build, index))
        if not fault:
            return Device("gpu", index, cards[index].name)
        faults.append(fault)
    return faults[0]


def _fault(build: Build, card: Card, driver: Driver) -> str:
    """What keeps an engine from a card, as far as that can be read; empty where nothing does."""
    if build.absent:
        return build.absent
    if card.capability < build.oldest or (build.newest and card.capability > build.newest):
        held = f"this build of {build.title} holds code for {dotted(build.oldest)} and newer"
        if build.newest:
            held = f"{build.title}'s builds hold code for {dotted(build.oldest)} to {dotted(build.newest)} only"
        newer = ": torch is for newer cards" if card.capability > build.oldest else ""
        return f"{card.name} has compute capability {dotted(card.capability)}, and {held}{newer}"
    if build.cuda is None:
        return f"this build of {build.title} has no CUDA, so it cannot use {card.name}: {build.remedy}"
    if driver.cuda[0] < build.cuda[0]:  # versions with one major number work together
        return (
            f"the NVIDIA driver speaks CUDA {dotted(driver.cuda)}, and this build of {build.title} needs "
            f"{dotted(build.cuda)}: install a newer driver, or a build for CUDA {driver.cuda[0]}"
        )
    return ""


def _failed(card: str, failure: str) -> str:
    return f"a training step on {card} failed with {failure!r}" if failure else ""


@cache
def probe(build: Build, index: int) -> str:
    """Train one step on a GPU, in a process of its own; empty when it ran, else the last thing it said."""
    code = f"import {build.module} as engine; from stages.training.device import Device; "
    code += f"engine.probe(Device('gpu', {index}))"
    try:
        done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "no answer within 300 seconds"
    if done.returncode == 0:
        return ""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return said[-1].strip() if said else f"exit code {done.returncode}"
