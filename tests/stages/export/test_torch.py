"""For PyTorch alone: a folder that says what the model says, and has nothing in it that anybody has to trust."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.stages.export.conftest import MODELS

pytest.importorskip("torch", reason="requirements-torch.txt is not installed")
from stages.export import torch as exported

if TYPE_CHECKING:
    from tests.stages.export.conftest import Alone, Arrays, Case, Made

LOAD = """
import torch
def load(folder):
    return torch.export.load(folder + "/model.pt2").module()
def call(model, ids, *states):
    return [array.numpy() for array in model(torch.from_numpy(ids), *map(torch.from_numpy, states))]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torch")


@pytest.fixture(scope="module")
def said(alone: type[Alone], models: dict[str, Path], cases: dict[str, Case], folder: Path) -> dict[str, Arrays]:
    return alone(exported.write, LOAD)(models, cases, folder)


@pytest.mark.parametrize("name", MODELS)
def test_torch_alone_says_what_the_model_says(
    name: str, cases: dict[str, Case], said: dict[str, Arrays], agree: Callable[[Case, Arrays], None]
) -> None:
    agree(cases[name], said[name])


@pytest.mark.parametrize("name", ["lstm", "2 networks, documents"])
def test_its_archive_has_no_pickle_and_says_nothing_of_the_machine(
    name: str, said: dict[str, Arrays], folder: Path
) -> None:
    number = [*MODELS].index(name)
    with zipfile.ZipFile(folder / str(number) / "model.pt2") as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    assert not [
        file for file, content in files.items() if content.startswith((b"\x80", b"PK")) or b"pickle\x00" in content
    ]
    program = files["model/models/model.json"].decode()
    assert "torch.ops.aten." + ("gru" if "documents" in name else "lstm") + ".input" in program
    assert not [path for path in (sys.prefix, str(Path(exported.__file__).parents[2])) if path in program]
    payloads: dict[str, Any] = json.loads(files["model/data/weights/model_weights_config.json"])["config"]
    assert payloads
    assert not [weight for weight in payloads.values() if weight["use_pickle"]]


def test_the_same_model_gives_the_same_bytes(
    models: dict[str, Path], said: object, folder: Path, tmp_path: Path
) -> None:
    exported.write(models["documents"], tmp_path)
    number = [*MODELS].index("documents")
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / str(number) / path.name).read_bytes(), path.name


def test_the_program_of_its_page_writes_text(model_of: Made, example: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    exported.write(model_of(tmp_path / "model", cell="gru", embedding_size=8), tmp_path / "out")
    written = example(tmp_path / "out")
    assert len(written) == 201
    assert "<unk>" not in written
