"""For a hub: the artifact's files, which anything reads, and a card that says where they are from and no more."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from safetensors import safe_open

from data.corpus.catalogue import catalogue
from data.store.folder import Store
from stages.export import card, hub
from stages.lm.model import LanguageModel

if TYPE_CHECKING:
    from tests.stages.export.conftest import Made

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]


def metadata(folder: Path) -> dict[str, Any]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


@pytest.fixture
def exported(here: Rnnlm, trained: Path, tmp_path: Path) -> Path:
    """A model that lies in a store with all that it was made from, and its evaluation."""
    here("export", "--to", "hf", tmp_path / "out", "--preset", trained)
    return tmp_path / "out"


def test_the_folder_is_the_model(exported: Path, tmp_path: Path) -> None:
    [artifact] = Store(tmp_path / "store").artifacts("train")
    text = "Then the cat saw 9 birds."
    assert LanguageModel.load(exported).score(text) == LanguageModel.load(artifact.folder).score(text)
    with safe_open(exported / "model.safetensors", framework="numpy") as file:
        assert file.get_tensor("dense.bias").shape == (
            len(json.loads((exported / "vocab.json").read_text())["tokens"]),
        )


def test_the_card_has_the_figures_of_the_evaluation(exported: Path, tmp_path: Path) -> None:
    [evaluated] = Store(tmp_path / "store").artifacts("evaluate")
    measured = json.loads((evaluated.folder / "metrics.json").read_text())
    [model] = metadata(exported)["model-index"]
    results = {result["dataset"]["split"]: result for result in model["results"]}
    assert [*results] == ["validation", "test"]
    figures = {metric["type"]: metric["value"] for metric in results["test"]["metrics"]}
    assert figures == pytest.approx({name: measured["test"][name] for name in figures}, abs=1e-6)
    assert {"perplexity", "bits_per_character"} <= {*figures}
    assert all(result["task"]["type"] == "text-generation" for result in results.values())


def test_the_card_says_where_the_model_is_from_but_no_path(exported: Path, tmp_path: Path) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    store = Store(tmp_path / "store")
    for stage in ("download", "tokenize", "train", "evaluate"):
        [artifact] = store.artifacts(stage)
        assert f"- Key of {stage}: `{artifact.manifest.key}`" in text
    [downloaded] = store.artifacts("download")
    assert f"`{downloaded.sha256('corpus.txt')}`" in text
    assert "- Text: text.txt\n" in text
    assert "- Seed: 0\n" in text
    assert "by bptt on the CPU" in text
    assert "numpy 2" in text
    for path in exported.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_the_licence_is_the_texts(
    here: Rnnlm, exported: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert metadata(exported)["license"] == "unknown"
    assert "fill in `license` above" in (exported / "README.md").read_text(encoding="utf-8")
    here("train", "--preset", tiny, "--corpus", "sample", "--set", "train.max_tokens=500", "--set", "train.ngram=3")
    here("export", "--to", "hf", tmp_path / "ours")  # of the newest model
    assert metadata(tmp_path / "ours")["license"] == "mit"
    assert "This project's own sample text" in (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")
    free = {"sample": replace(catalogue()["sample"], licence="public domain (published 1895)")}
    monkeypatch.setattr(card, "catalogue", lambda: free)
    here("export", "--to", "hf", tmp_path / "free")
    assert metadata(tmp_path / "free")["license"] == "other"
    assert metadata(tmp_path / "free")["license_name"] == "public-domain"


def test_a_mixture_is_exported_whole(here: Rnnlm, tiny: Path, tmp_path: Path) -> None:
    here("train", "--preset", tiny, "--set", "train.ngram=3")
    here("export", "--to", "hf", tmp_path / "out")
    [artifact] = Store(tmp_path / "store").artifacts("train")
    text = "Then the cat saw 9 birds."
    assert LanguageModel.load(tmp_path / "out").score(text) == LanguageModel.load(artifact.folder).score(text)
    assert "n-gram" in metadata(tmp_path / "out")["tags"]


def test_of_a_model_that_lies_in_no_store_the_card_says_so(model_of: Made, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    hub.write(model_of(tmp_path / "model", cell="gru"), tmp_path / "out")
    assert "lies in no store" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "model-index" not in metadata(tmp_path / "out")


def test_an_evaluation_that_is_damaged_is_not_told(here: Rnnlm, trained: Path, tmp_path: Path) -> None:
    [evaluated] = Store(tmp_path / "store").artifacts("evaluate")
    (evaluated.folder / "metrics.json").write_text("{}")
    here("export", "--to", "hf", tmp_path / "out", "--preset", trained)
    assert "model-index" not in metadata(tmp_path / "out")


@pytest.mark.parametrize(
    ("corpus", "shown"),
    [
        ("https://me:secret@example.org/a.txt?token=secret", "https://example.org/a.txt"),
        ("file:///home/me/letters.txt", "letters.txt"),
        ("FILE:///home/me/letters.txt", "letters.txt"),
        ("/home/me/letters/**/*.txt", "*.txt"),
        ("timemachine", "timemachine"),
    ],
)
def test_what_is_nobody_elses_business_is_left_out(
    corpus: str, shown: str, here: Rnnlm, trained: Path, tmp_path: Path
) -> None:
    [downloaded] = Store(tmp_path / "store").artifacts("download")
    manifest = downloaded.manifest.model_copy(update={"config": {"corpus": corpus}})
    found = card.Origin({"download": manifest}).corpus
    assert found.startswith(shown)
    assert "secret" not in found
    assert "/home" not in found
