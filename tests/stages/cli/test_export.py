"""`rnnlm export`, as a contract: a folder that is there whole or not at all, and one sentence for bad input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from data.errors import Interrupted
from stages.export import beside, hub

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]
FORMATS = ["torch", "onnx", "hf"]


def refused(here: Rnnlm, *arguments: str | Path, **options: Path) -> str:
    """The one sentence that an export ends in."""
    done = here("export", *arguments, code=2, **options)
    assert not done.stdout
    [sentence] = done.stderr.splitlines()
    return sentence


@pytest.mark.parametrize("to", FORMATS)
def test_a_folder_that_is_not_empty_is_left_as_it_is(to: str, here: Rnnlm, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "is not empty" in refused(here, "--to", to, out, "--model", model)
    assert [path.read_text() for path in out.iterdir()] == ["mine"]


def test_an_empty_folder_is_taken_and_a_link_leads_there(here: Rnnlm, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    done = here("export", "--to", "hf", tmp_path / "link", "--model", model)
    assert "README.md" in done.stdout
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_cannot_be_exported_is_said_in_a_sentence(here: Rnnlm, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "inside").mkdir()
    of: list[str | Path] = ["--model", model]
    assert "is a file" in refused(here, "--to", "hf", tmp_path / "file", *of)
    assert "no place for a folder" in refused(here, "--to", "hf", tmp_path / "no" / "out", *of)
    assert "name it from outside" in refused(here, "--to", "hf", ".", *of, cwd=tmp_path / "inside")
    assert "leave out --model" in refused(here, "--to", "hf", tmp_path / "out", *of, "--preset", "sample")
    assert "does not describe a model" in refused(here, "--to", "hf", tmp_path / "out", "--model", tmp_path)
    assert "no trained model" in refused(here, "--to", "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", FORMATS)
def test_weights_that_are_not_finite_are_refused_and_nothing_is_left(
    to: str, here: Rnnlm, model: Path, tmp_path: Path
) -> None:
    if to != "hf":
        pytest.importorskip(to)
    weights = load_file(model / "model.safetensors")
    weights["dense.bias"][3] = np.nan
    save_file(weights, model / "model.safetensors")
    before = {*tmp_path.iterdir()}
    assert "not finite" in refused(here, "--to", to, tmp_path / "out", "--model", model)
    assert {*tmp_path.iterdir()} == before


@pytest.mark.parametrize("to", ["torch", "onnx"])
def test_a_library_that_is_missing_is_named(
    to: str, here: Rnnlm, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, to, None)  # as an import finds it that is not installed
    monkeypatch.delitem(sys.modules, f"stages.export.{to}", raising=False)
    assert f"--to {to} needs" in (sentence := refused(here, "--to", to, tmp_path / "out", "--model", model))
    assert "requirements-torch.txt" in sentence or "onnx>=1.23" in sentence


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Interrupted("by SIGTERM", 15)])
def test_an_export_that_ends_in_the_middle_leaves_nothing(
    error: Exception, here: Rnnlm, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(beside, "vocabulary", fails)
    before = {*tmp_path.iterdir()}
    code = 2 if isinstance(error, OSError) else 143
    done = here("export", "--to", "hf", tmp_path / "out", "--model", model, code=code)
    assert ("cannot be written: No space left" if code == 2 else "by SIGTERM") in done.stderr
    assert {*tmp_path.iterdir()} == before


def test_what_came_meanwhile_is_kept(here: Rnnlm, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = hub.write

    def slow(found: Path, out: Path) -> None:
        write(found, out)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")

    monkeypatch.setattr(hub, "write", slow)
    assert "cannot be written" in refused(here, "--to", "hf", tmp_path / "out", "--model", model)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_what_a_graph_cannot_hold_is_said(here: Rnnlm, tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    here("train", "--preset", tiny, "--set", "train.ngram=3")
    done = here("export", "--to", "onnx", tmp_path / "out")
    [sentence] = done.stderr.splitlines()
    assert "without the n-gram" in sentence
    assert sentence in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert not here("export", "--to", "hf", tmp_path / "whole").stderr
