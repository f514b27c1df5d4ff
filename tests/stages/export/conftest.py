"""Models of every kind, exported, and what a process says of them that has nothing of this project."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from data.corpus.letters import SHIFTS
from data.corpus.text import END
from data.tables.merges import Merges
from data.tables.vocab import Vocab
from stages.lm import ensemble
from stages.lm.parameters import Architecture, Parameters, together

LETTERS = " abcdefghijklmnopqrstuvwxyz\n"
MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"cell": "lstm", "embedding_size": 8},
    "lstm, one-hot, 2 layers": {"cell": "lstm", "layers": 2},
    "gru, tied, 2 layers": {"cell": "gru", "layers": 2, "embedding_size": 12, "tie_weights": True},
    "rnn of ReLU": {"cell": "rnn", "activation": "relu"},
    "rnn, 2 layers": {"cell": "rnn", "layers": 2, "embedding_size": 8},
    "3 networks": {"cell": "lstm", "embedding_size": 8, "networks": 3},
    "documents": {"cell": "lstm", "layers": 2, "embedding_size": 8, "ends": True},
    "2 networks, documents": {"cell": "gru", "ends": True, "networks": 2},
}
"""Name → what is special about it."""
STEPS, TEXTS = 11, 3

Arrays = Mapping[str, NDArray[Any]]
Made = Callable[..., Path]


def made(folder: Path, *, level: str = "char", vocab: Vocab | None = None, **special: Any) -> Path:
    """The folder of a model that was trained nowhere."""
    folder.mkdir()
    ends = special.get("ends", False)
    if vocab is None:
        tokens = ["<unk>", *([END] if ends else []), *LETTERS]
        vocab = Vocab(tokens, [0] * len(tokens))
    given = {"activation": "tanh", "hidden_size": 12, "layers": 1, "vocab_size": len(vocab), **special}
    architecture = Architecture(**given)
    save_file(together(drawn(architecture)), folder / "model.safetensors")
    vocab.write(folder / "vocab.arrow")
    number = 4 if ends else 3 if level == "bpe" else 2
    number = 7 if level == "letter" else 6 if architecture.networks > 1 else number
    description = {"format": number, **architecture.description(), "level": level, "normalizer": "lower"}
    (folder / "config.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def drawn(architecture: Architecture) -> list[Parameters]:
    """Weights of each network of a model, with biases, so that it matters where these stand."""
    rng = np.random.default_rng(3)
    return [
        {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in architecture.shapes().items()}
        for _ in range(architecture.networks)
    ]


def letters() -> Vocab:
    return Vocab(["<unk>", *SHIFTS, *"ab ."], [0] * 7)


def words() -> Vocab:
    return Vocab(["<unk>", "the", "sea", "↵"], [0] * 4)


def subwords() -> Vocab:
    return Vocab.merged({"thé": 3, " sea": 2}, Merges([("t", "h"), ("th", "Ã"), ("s", "e")]))


@pytest.fixture(scope="session")
def model_of() -> Made:
    """Makes a model's folder: ``model_of(folder, cell=…, level=…, vocab=…)``."""
    return made


@dataclass(frozen=True)
class Case:
    """One model and what it says of some texts, side by side."""

    architecture: Architecture
    ids: NDArray[np.int64]
    """(steps, texts)."""
    logits: NDArray[np.float32]
    """As the project's own network has them, (steps, texts, vocab)."""
    arrays: int
    """Of a state."""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → folder."""
    root = tmp_path_factory.mktemp("models")
    return {name: made(root / str(number), **special) for number, (name, special) in enumerate(MODELS.items())}


@pytest.fixture(scope="session")
def cases(models: dict[str, Path]) -> dict[str, Case]:
    """Name → what is expected."""
    return {name: _case(folder) for name, folder in models.items()}


def _case(folder: Path) -> Case:
    architecture = Architecture.parse({**json.loads((folder / "config.json").read_text())})
    predictor = ensemble.made(architecture, together(drawn(architecture)))
    ids = np.random.default_rng(0).integers(0, architecture.vocab_size, (STEPS, TEXTS))
    ids[4, 0] = ids[7, 2] = 1  # where documents have ends, it is that
    states, logits = predictor.zero_state(TEXTS), []
    for row in ids:
        predictor.advance_columns(row, states)
        logits.append(predictor.readout_columns()(states).astype(np.float32))
    arrays = (2 if architecture.cell == "lstm" else 1) * architecture.networks
    return Case(architecture, ids, np.stack(logits), arrays)


_ALONE = """
import sys
import numpy as np
{load}
for folder in sys.argv[1:]:
    given = np.load(folder + "/given.npz")
    ids, zero = given["ids"], [given["zero"]] * int(given["arrays"])
    model = load(folder)
    logits, *end = call(model, ids, *zero)
    state, stepped = zero, []
    for row in ids:
        one, *state = call(model, row[None], *state)
        stepped.append(one[0])
    alone, *_ = call(model, ids[:, :1], *[array[:, :1] for array in zero])
    np.savez(
        folder + "/said.npz", logits=logits, stepped=np.stack(stepped), alone=alone, end=np.stack(end),
        state=np.stack(state),
    )
ours = {{"data", "stages", "flows", "rnnlm"}} & {{name.partition(".")[0] for name in sys.modules}}
assert not ours, ours
"""


@dataclass(frozen=True)
class Alone:
    """Runs exported folders in a process that has nothing of this project.

    Args:
        write: what exports a model.
        load: Python of ``load(folder)`` and ``call(model, ids, *states)``, on arrays of NumPy.
    """

    write: Callable[[Path, Path], None]
    load: str

    def __call__(self, models: Mapping[str, Path], cases: Mapping[str, Case], root: Path) -> dict[str, Arrays]:
        folders = {name: root / str(number) for number, name in enumerate(models)}
        for name, folder in folders.items():
            folder.mkdir()
            self.write(models[name], folder)
            case = cases[name]
            zero = np.zeros((case.architecture.layers, TEXTS, case.architecture.hidden_size), np.float32)
            np.savez(folder / "given.npz", ids=case.ids, zero=zero, arrays=case.arrays)
        python(_ALONE.format(load=self.load), root, *map(str, folders.values()))
        return {name: np.load(folder / "said.npz") for name, folder in folders.items()}


def python(script: str, folder: Path, *arguments: str) -> str:
    """What a script prints that a process of its own runs in a folder, without that folder on its path."""
    command = [sys.executable, "-P", "-W", "error", "-c", script, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def alone() -> type[Alone]:
    return Alone


def same(case: Case, said: Arrays) -> None:
    """See that what another library says is what the project says."""
    for name in ("logits", "stepped"):
        assert said[name].shape == case.logits.shape
        assert said[name].dtype == np.float32
        np.testing.assert_allclose(said[name], case.logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(said["alone"], case.logits[:, :1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(said["state"], said["end"], rtol=0, atol=1e-5)


@pytest.fixture(scope="session")
def agree() -> Callable[[Case, Arrays], None]:
    return same


@pytest.fixture(scope="session")
def example() -> Callable[[Path], str]:
    """What the program prints that a folder's page shows, run there."""

    def run(folder: Path) -> str:
        page = (folder / "README.md").read_text(encoding="utf-8")
        return python(page.partition("```python\n")[2].partition("```")[0], folder)

    return run


@pytest.fixture(scope="session")
def vocabularies() -> dict[str, Vocab | None]:
    """Level → a vocabulary of it."""
    return {"char": None, "letter": letters(), "word": words(), "bpe": subwords()}
