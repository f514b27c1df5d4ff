"""A model that goes on learning scores a text as the command says, and is the same before each text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from data.errors import ConfigError, StoreError
from stages.lm.model import LanguageModel
from stages.scoring.adapting import adapting

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Rnnlm

TEXT = "the sea is miles away\n" * 40


@pytest.mark.parametrize("extra", [(), ("train.networks=2",), ("train.networks=2", "train.ngram=4")], ids=len)
def test_a_program_gets_what_the_command_prints(
    here: Rnnlm, trained: Path, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    (tmp_path / "letter.txt").write_text(TEXT)
    settings = [argument for setting in extra for argument in ("--set", setting)]
    folder = here("train", "--preset", trained, *settings).stdout.strip()
    model = LanguageModel.load(folder)
    for rate in (0.003, 0)[: 2 if "train.ngram=4" in extra else 1]:
        said = here("evaluate", "--on", tmp_path / "letter.txt", "--model", folder, "--adapt", rate, "--json")
        losses = adapting(model, rate)
        for _ in range(2):  # nothing of the first text is left when the second begins
            assert model.score(TEXT, losses).loss == pytest.approx(json.loads(said.stdout)["loss"], rel=1e-9)
        assert model.score(TEXT, losses).loss < model.score(TEXT).loss
    # Where networks hardly move, it is the model that stands still, or whose n-gram alone learns.
    still = adapting(model, 0) if "train.ngram=4" in extra else None
    hardly = model.score(TEXT, adapting(model, 1e-9)).loss
    assert hardly == pytest.approx(model.score(TEXT, still).loss, rel=1e-5)


def test_what_cannot_adapt_says_so(model: Path) -> None:
    loaded = LanguageModel.load(model)
    for rate, sentence in (
        (0.0, f"at a rate of 0 an n-gram adapts alone, and {model} has none: give one above 0"),
        (0.2, "a model cannot adapt at a rate of 0.2: give 0, or 1e-30 to 0.1, say 3e-4"),
        (float("nan"), "a model cannot adapt at a rate of nan"),
    ):
        with pytest.raises(ConfigError, match=sentence.replace("(", "[(]")):
            adapting(loaded, rate)
    (model / "model.safetensors").unlink()
    with pytest.raises(StoreError, match="holds no weights that can be read"):
        adapting(loaded, 3e-4)
    loaded.folder = None
    with pytest.raises(ConfigError, match="was not loaded from a folder"):
        adapting(loaded, 3e-4)
