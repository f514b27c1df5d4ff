"""Artifacts whose bytes are as published and mean nothing: named once, and made again; elsewhere, a sentence."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file, save_file

from data.errors import StoreError
from data.store import fingerprint
from data.store.artifact import Artifact
from data.tables.documents import Documents
from data.tables.tokens import IndexTable
from data.tables.vocab import Vocab
from stages.pipeline import sound
from stages.pipeline.decide import fault

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


def forge(folder: Path, name: str, change: Callable[[Path], object]) -> None:
    """Change a file of an artifact, and let its manifest say so."""
    change(folder / name)
    manifest = json.loads((folder / "manifest.json").read_text())
    content = folder / name
    manifest["outputs"][name] = {"bytes": content.stat().st_size, "sha256": fingerprint.file_digest(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edited(**values: Any) -> Callable[[Path], object]:
    """Other values in a file of JSON."""
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values))


def table(path: Path, **columns: pa.Array) -> None:
    """Another Arrow table."""
    batch = pa.record_batch(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def out_of_range(path: Path) -> None:
    opened = IndexTable.open(path)
    ids = opened.ids.copy()
    ids[3] = 250
    vars(opened)["ids"] = ids
    opened.write(path)


def described(**facts: Any) -> Callable[[Path], object]:
    """An index table that says something else of itself."""

    def change(path: Path) -> None:
        with pa.OSFile(str(path), "rb") as source:
            batch = pa.ipc.open_file(source).get_batch(0)
        metadata = batch.schema.metadata | {name.encode(): json.dumps(fact) for name, fact in facts.items()}
        batch = batch.replace_schema_metadata(metadata)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)

    return change


def compressed(path: Path) -> None:
    """A vocabulary of a few KB that would be 200 MB."""
    batch = pa.record_batch({"token": pa.array(["<unk>", "a" * 200_000_000]), "count": pa.array([0, 1])})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    assert path.stat().st_size < 1_000_000


def weights(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    def changed(path: Path) -> None:
        tensors = load_file(path)
        save_file({**tensors, "dense.bias": change(tensors["dense.bias"])}, path)

    return changed


def of_kind(kind: str, size: int) -> Callable[[Path], object]:
    """Weights of a kind that NumPy lacks."""
    header = json.dumps({"dense.bias": {"dtype": kind, "shape": [4], "data_offsets": [0, 4 * size]}}).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * size))


def in_quotes(path: Path) -> None:
    """A figure that is text."""
    test = json.loads(path.read_text())["test"]
    edited(test=test | {"perplexity": str(test["perplexity"])})(path)


TOKENS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "ids out of range": ("tokens.arrow", out_of_range),
    "another column": ("tokens.arrow", lambda path: table(path, id=pa.array([1.5]))),
    "a level that there is not": ("tokens.arrow", described(level="byte")),
    "a vocabulary's size of another type": ("tokens.arrow", described(vocab_size="many")),
    "splits of another type": ("tokens.arrow", described(splits=[1])),
    "a vocabulary of other columns": (
        "vocab.arrow",
        lambda path: table(path, token=pa.array([1]), number=pa.array([2])),
    ),
    "a vocabulary that lacks values": (
        "vocab.arrow",
        lambda path: table(path, token=pa.array(["<unk>", None]), count=pa.array([1, None], pa.int64())),
    ),
    "a compressed vocabulary": ("vocab.arrow", compressed),
    "a larger vocabulary": ("vocab.arrow", lambda path: Vocab(["<unk>", "a"], [0, 1]).write(path)),
}
MODEL: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a weight that is not finite": ("model.safetensors", weights(lambda array: array * np.float32("nan"))),
    "an array of another shape": ("model.safetensors", weights(lambda array: array[1:])),
    "an array of another type": ("model.safetensors", weights(lambda array: array.astype(np.float16))),
    "missing arrays": ("model.safetensors", lambda path: save_file({}, path)),
    "BF16": ("model.safetensors", of_kind("BF16", 2)),
    "F8": ("model.safetensors", of_kind("F8_E4M3", 1)),
    "a hundred million layers": ("config.json", edited(layers=10**8)),
    "nested deeply": ("config.json", lambda path: path.write_text('{"a":' * 100_000)),
    "an integer of 5,000 digits": ("config.json", lambda path: path.write_text('{"format": ' + "9" * 5000 + "}")),
}


OTHERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a loss of another type": ("evaluate/metrics.json", edited(test={"loss": "much"})),
    "a number in quotes": ("evaluate/metrics.json", in_quotes),
    "another type": ("evaluate/metrics.json", lambda path: path.write_text("[1]")),
    "nested deeply": ("evaluate/samples.json", lambda path: path.write_text('{"a":' * 100_000)),
    "no baselines": ("baselines/baselines.json", edited(losses={})),
    "a baseline that is no number": ("baselines/baselines.json", lambda path: path.write_text('{"losses": NaN}')),
    "no text": ("download/corpus.txt", lambda path: path.write_bytes(b"\xff\xfe\x00")),
    "no source": ("download/source.json", lambda path: path.write_text("{}")),
    "a history of other columns": ("train/history.arrow", lambda path: table(path, epoch=pa.array([1]))),
}


@pytest.fixture
def artifact(trained: Path) -> Callable[[str], Artifact]:
    """The artifact of a stage, as it is read now."""

    def call(stage: str) -> Artifact:
        (folder,) = (trained.parent / "store" / stage).iterdir()
        found = Artifact.read(folder)
        assert found
        return found

    return call


@pytest.mark.parametrize("what", TOKENS)
def test_tokens_that_mean_nothing_are_named(artifact: Callable[[str], Artifact], what: str) -> None:
    name, change = TOKENS[what]
    folder = artifact("tokenize").folder
    forge(folder, name, change)
    said = fault(artifact("tokenize"))
    assert said.startswith((f"{folder / name} ", f"{folder / 'tokens.arrow'} "))
    assert "\n" not in said


def test_subwords_without_merges_are_named(artifact: Callable[[str], Artifact]) -> None:
    folder = artifact("tokenize").folder
    forge(folder, "tokens.arrow", described(level="bpe"))
    assert fault(artifact("tokenize")).startswith(f"{folder / 'merges.arrow'} holds no merges that can be used")


@pytest.mark.parametrize("what", MODEL)
def test_a_model_that_means_nothing_is_one_sentence(
    here: Rnnlm, artifact: Callable[[str], Artifact], what: str
) -> None:
    name, change = MODEL[what]
    folder = artifact("train").folder
    forge(folder, name, change)
    said = here("sample", "--model", folder, code=2).stderr
    assert said.startswith((f"rnnlm: {folder / name} ", f"rnnlm: {folder / 'model.safetensors'} "))
    assert said.count("\n") == 1
    assert fault(artifact("train")) == said.removeprefix("rnnlm: ").strip()


@pytest.mark.parametrize("what", OTHERS)
def test_other_files_are_named(here: Rnnlm, artifact: Callable[[str], Artifact], what: str) -> None:
    file, change = OTHERS[what]
    stage, _, name = file.partition("/")
    folder = artifact(stage).folder
    forge(folder, name, change)
    assert f"{stage:9} {folder.name} {folder / name} " in here("verify", code=2).stdout


FIGURES = {"loss": 1.0, "perplexity": 2.7, "bits_per_character": 1.4, "tokens": 9}
MIXED: dict[str, Any] = {"order": 2, "shares": [0.5, 0.4], "chosen_on": 0}
NASTY = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    "lies",
    [
        *({"mixture": {**MIXED, name: lie}} for name in ("order", "chosen_on") for lie in (None, "2", -1, True, NASTY)),
        {"mixture": {**MIXED, "shares": [0.5]}},
        {"mixture": {"shares": MIXED["shares"]}},
        {"mixture": None},
        {"format": 4},
    ],
)
def test_a_description_that_is_no_mixture_s_is_named(tmp_path: Path, lies: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"format": 5, "mixture": MIXED}))
    sound.trained(tmp_path)
    edited(**lies)(tmp_path / "config.json")
    with pytest.raises(StoreError, match=r"config\.json does not say what it should") as refused:
        sound.trained(tmp_path)
    assert NASTY not in str(refused.value)


@pytest.mark.parametrize("parts", [{}, {"network": None, "ngram": None}, {"network": FIGURES, "ngram": FIGURES}])
def test_figures_of_half_a_mixture_are_named(artifact: Callable[[str], Artifact], parts: dict[str, Any]) -> None:
    folder = artifact("evaluate").folder
    test = json.loads((folder / "metrics.json").read_text())["test"]
    forge(folder, "metrics.json", edited(test=test | {"parts": parts}))
    assert fault(artifact("evaluate")).startswith(f"{folder / 'metrics.json'} does not say what it should")


def test_what_means_nothing_is_made_again_before_it_is_read(
    here: Rnnlm, artifact: Callable[[str], Artifact], trained: Path
) -> None:
    def sound() -> dict[str, bytes]:
        names = {"tokenize": "tokens.arrow", "train": "model.safetensors", "baselines": "baselines.json"}
        return {stage: (artifact(stage).folder / name).read_bytes() for stage, name in names.items()}

    before = sound()
    forge(artifact("tokenize").folder, *TOKENS["ids out of range"])
    forge(artifact("baselines").folder, "baselines.json", edited(losses={}))
    done = here("run", "--preset", trained, "--set", "train.seed=2").stderr
    assert done.count("tokenize: the artifact is damaged: ") == 1, "and not once for each stage that reads it"
    assert done.count("baselines: the artifact is damaged: ") == 1
    for model in (trained.parent / "store" / "train").iterdir():
        forge(model, *MODEL["BF16"])
    assert (
        here("run", "--preset", trained, "--set", "evaluate.seed=2").stderr.count("train: the artifact is damaged") == 1
    )
    for model in (trained.parent / "store" / "train").iterdir():
        if (model / "model.safetensors").stat().st_size < 1000:
            shutil.rmtree(model)  # the one that was not asked for
    assert sound() == before
    assert here("run", "--preset", trained, "--set", "evaluate.seed=2").stderr.count("cached") == 4
    here("verify")


def test_a_report_whose_figures_mean_nothing_is_made_again(here: Rnnlm, trained: Path) -> None:
    (folder,) = (trained.parent / "store" / "evaluate").iterdir()
    forge(folder, "metrics.json", edited(valid=3))
    assert "evaluate  stale    damaged: " in here("status", "--preset", trained).stdout
    assert here("run", "--preset", trained).stderr.count("evaluate: the artifact is damaged: ") == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda path: path.write_bytes(b"text"), "is no table of documents that can be read"),
        (lambda path: table(path, name=pa.array(["a"])), "is no table of documents that can be read"),
        (lambda path: documents(path, 3), "does not fit its text: download again"),
        (lambda path: documents(path, 5000), "does not fit its text: download again"),
    ],
)
def test_documents_that_do_not_fit_their_text_are_named(
    here: Rnnlm, tmp_path: Path, change: Callable[[Path], object], says: str
) -> None:
    (tmp_path / "notes").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "notes" / name).write_text(f"The note {name}.\n", encoding="utf-8")
    here("download", "--corpus", tmp_path / "notes")
    [folder] = (tmp_path / "store" / "download").iterdir()
    artifact = Artifact.read(folder)
    assert artifact
    assert fault(artifact) == ""
    forge(folder, "documents.arrow", change)
    assert says in fault(artifact)


def documents(path: Path, size: int) -> None:
    """A table of one document of so many bytes."""
    found = Documents()
    found.add("a.txt", 0, size, bytes(32))
    found.write(path)
