"""For runtimes of ONNX: a folder that says what the model says, for onnxruntime and NumPy alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from data.corpus.letters import SHIFTS
from data.corpus.text import END
from data.errors import ConfigError
from tests.stages.export.conftest import MODELS

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from stages.export import onnx as exported  # noqa: E402

if TYPE_CHECKING:
    from data.tables.vocab import Vocab
    from tests.stages.export.conftest import Alone, Arrays, Case, Made

LOAD = """
import onnxruntime
def load(folder):
    return onnxruntime.InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
def call(model, ids, *states):
    names = [one.name for one in model.get_inputs()]
    return model.run(None, dict(zip(names, [ids, *states], strict=True)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def said(alone: type[Alone], models: dict[str, Path], cases: dict[str, Case], folder: Path) -> dict[str, Arrays]:
    return alone(exported.write, LOAD)(models, cases, folder)


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_alone_says_what_the_model_says(
    name: str, cases: dict[str, Case], said: dict[str, Arrays], agree: Callable[[Case, Arrays], None]
) -> None:
    agree(cases[name], said[name])


def test_sizes_that_a_call_chooses_and_states_have_names(said: object, folder: Path) -> None:
    graph = onnx.load(folder / str([*MODELS].index("3 networks")) / "model.onnx").graph
    shapes = {
        value.name: [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }
    states = [f"{name}_{number}" for number in range(3) for name in ("hidden", "cell")]
    assert [value.name for value in graph.input] == ["ids", *states]
    assert [value.name for value in graph.output] == ["logits", *(f"new_{name}" for name in states)]
    assert shapes["ids"] == ["steps", "batch"]
    assert shapes["logits"] == ["steps", "batch", 29]
    assert shapes["cell_2"] == shapes["new_cell_2"] == [1, "batch", 12]


@pytest.mark.parametrize("name", ["lstm", "lstm, one-hot, 2 layers", "2 networks, documents"])
def test_an_id_that_is_not_in_the_vocabulary_is_refused(
    name: str, cases: dict[str, Case], said: object, folder: Path
) -> None:
    model = onnxruntime.InferenceSession(folder / str([*MODELS].index(name)) / "model.onnx")
    architecture = cases[name].architecture
    zero = np.zeros((architecture.layers, 1, architecture.hidden_size), np.float32)
    states = {one.name: zero for one in model.get_inputs()[1:]}
    for one in (-1, architecture.vocab_size, 1 << 40):
        with pytest.raises(Exception, match="out of data bounds"):
            model.run(None, {"ids": np.array([[2], [one]]), **states})


def test_the_same_model_gives_the_same_bytes(
    models: dict[str, Path], said: object, folder: Path, tmp_path: Path
) -> None:
    exported.write(models["documents"], tmp_path)
    number = [*MODELS].index("documents")
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / str(number) / path.name).read_bytes(), path.name


@pytest.mark.parametrize("level", ["char", "letter", "word", "bpe"])
def test_the_program_of_its_page_writes_text(
    level: str, vocabularies: dict[str, Vocab | None], model_of: Made, example: Callable[[Path], str], tmp_path: Path
) -> None:
    model = model_of(tmp_path / "model", cell="gru", embedding_size=8, level=level, vocab=vocabularies[level])
    (tmp_path / "out").mkdir()
    exported.write(model, tmp_path / "out")
    written = example(tmp_path / "out")
    assert "<unk>" not in written
    if level == "char":
        assert len(written) == 201
    elif level == "letter":
        assert {"a", "A", "b", "B"} <= {*written}
        assert not {*SHIFTS} & {*written}
    elif level == "word":
        assert {"the", "sea"} == set(written.split())
        assert "\n" in written.strip()
    else:
        assert len(written) > 50


def test_a_text_ends_where_its_document_does(model_of: Made, example: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    exported.write(model_of(tmp_path / "model", cell="lstm", embedding_size=8, ends=True), tmp_path / "out")
    assert END not in "".join(example(tmp_path / "out") for _ in range(2))


def test_more_than_a_file_of_onnx_holds_is_said(
    model_of: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "LARGEST", 1000)
    with pytest.raises(ConfigError, match="use --to torch"):
        exported.write(model_of(tmp_path / "model", cell="lstm"), tmp_path)
