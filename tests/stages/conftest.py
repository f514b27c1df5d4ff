"""Every engine there is, and trainings of a moment on a text of a few hundred characters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.progress import Progress
from data.tables.tokens import END_ID, IndexTable, Split
from data.tables.vocab import Vocab
from stages.config import TrainConfig
from stages.train import train
from stages.training.device import Device
from stages.training.engine import Engine, Recipe


@dataclass(frozen=True)
class Build:
    """Builds an engine on the CPU."""

    package: str
    """What has to be installed for it."""
    module: str
    name: str
    """Of its class."""

    def __call__(self, recipe: Recipe) -> Engine:
        engine: Engine = getattr(import_module(self.module), self.name)(recipe, Device("cpu"))
        return engine


ENGINES = {
    "mxnet": Build("mxnet", "stages.training.gluon", "GluonEngine"),
    "bptt": Build("numpy", "stages.training.bptt", "BpttEngine"),
    "torch": Build("torch", "stages.training.torch", "TorchEngine"),
}
TEXT = "the quick brown fox jumps over the lazy dog and runs away from it. " * 12
SMALL: dict[str, Any] = {"hidden_size": 12, "batch_size": 4, "num_steps": 9, "epochs": 6, "clip_norm": 0.5}


@pytest.fixture(params=ENGINES)
def build(request: pytest.FixtureRequest) -> Build:
    """Each engine in turn."""
    found = ENGINES[request.param]
    if find_spec(found.package) is None:
        pytest.skip(f"the engine {request.param} needs {found.package}, which is not installed")
    return found


@pytest.fixture(scope="session")
def installed() -> list[Build]:
    """All engines that this machine has."""
    return [found for found in ENGINES.values() if find_spec(found.package)]


Tokenized = Callable[..., Path]


def _tokenized(folder: Path, text: str = TEXT, valid: float = 0.2, documents: Sequence[str] = ()) -> Path:
    folder.mkdir()
    vocab = Vocab.build(Counter("".join(documents) or text), ends=len(documents) or None)
    ids = np.array(vocab.ids(text), vocab.id_type)
    if documents:
        ids = np.array([id_ for one in documents for id_ in (*vocab.ids(one), END_ID)], vocab.id_type)
    bounds = [0, round(len(ids) * (1 - valid)), len(ids), len(ids)]
    splits = {
        name: Split(start, stop, stop - start, 0)
        for name, start, stop in zip(("train", "valid", "test"), bounds, bounds[1:], strict=False)
    }
    IndexTable(ids, splits, "char", "lower", "0" * 64, len(vocab), ends=vocab.ends).write(folder / "tokens.arrow")
    vocab.write(folder / "vocab.arrow")
    return folder


@pytest.fixture(scope="session")
def tokenized() -> Tokenized:
    """Makes a folder of `tokenize`: ``tokenized(folder, text=…, valid=0.2)``, ``valid`` being a fraction; with
    ``documents=…`` of several texts."""
    return _tokenized


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `tokenize` with a validation split."""
    return _tokenized(tmp_path_factory.mktemp("corpus") / "tokens")


def silent(done: float, total: float, figures: str) -> None:
    pass


class Runs:
    """Training into folders of their own, and what came out."""

    small = SMALL

    def __init__(self, tokens: Path, folder: Path, engine: Callable[[Recipe], Engine]) -> None:
        self.tokens, self.folder, self.engine = tokens, folder, engine
        self.count = 0
        self.timing: dict[str, float] = {}

    def on(self, engine: Callable[[Recipe], Engine] | None = None, tokens: Path | None = None) -> Runs:
        """The same with another engine, or on another corpus."""
        return Runs(tokens or self.tokens, self.folder, engine or self.engine)

    def __call__(self, checkpoints: str = "unshared", progress: Progress = silent, **changes: Any) -> dict[str, bytes]:
        self.count += 1
        out = self.folder / f"out{self.count}"
        out.mkdir()
        if checkpoints == "unshared":
            checkpoints = f"checkpoints{self.count}"
        self.timing = train(
            TrainConfig(**{**SMALL, **changes}),
            tokens=self.tokens,
            out=out,
            progress=progress,
            checkpoints=self.folder / checkpoints,
            engine=self.engine,
            beside=[self.folder / f"{checkpoints}+{number}" for number in range(1, changes.get("networks", 1))],
        )
        return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture
def run(tokens: Path, tmp_path: Path) -> Runs:
    """Trains on the engine that is there on every machine."""
    return Runs(tokens, tmp_path, ENGINES["bptt"])
