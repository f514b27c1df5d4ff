"""What lies beside a graph: all that a program needs to turn text into ids and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.corpus.text import END
from stages.export import beside
from stages.lm import stored

if TYPE_CHECKING:
    from data.tables.vocab import Vocab
    from tests.stages.export.conftest import Made


@pytest.mark.parametrize("level", ["char", "letter", "word", "bpe"])
def test_tokens_stand_in_the_order_of_their_ids(
    level: str, vocabularies: dict[str, Vocab | None], model_of: Made, tmp_path: Path
) -> None:
    model = model_of(tmp_path / "model", cell="gru", level=level, vocab=vocabularies[level])
    beside.vocabulary(tmp_path / "vocab.json", stored.read(model, finite=True))
    found = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    vocab = stored.read(model, finite=True).vocab
    assert found["tokens"] == vocab.tokens
    assert (found["level"], found["normalizer"], found["unknown"], found["end"]) == (level, "lower", 0, None)
    assert ("merges" in found) is (level == "bpe")


def test_a_program_reads_subwords_by_what_stands_there(
    vocabularies: dict[str, Vocab | None], model_of: Made, tmp_path: Path
) -> None:
    """Merging as the page says, with nothing of ours."""
    model = model_of(tmp_path / "model", cell="gru", level="bpe", vocab=vocabularies["bpe"])
    ours = stored.read(model, finite=True).vocab
    beside.vocabulary(tmp_path / "vocab.json", stored.read(model, finite=True))
    found = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    tokens = [found["letters"][byte] for byte in "thé".encode()]
    for left, right in found["merges"]:
        at = 0
        while at + 1 < len(tokens):
            if tokens[at : at + 2] == [left, right]:
                tokens[at : at + 2] = [left + right]
            at += 1
    assert ours.merges is not None
    assert tokens == ours.merges.split("thé")
    assert bytes(map(found["letters"].index, "".join(tokens))).decode() == "thé"


def test_the_end_of_a_document_is_named(model_of: Made, tmp_path: Path) -> None:
    model = model_of(tmp_path / "model", cell="gru", ends=True)
    beside.vocabulary(tmp_path / "vocab.json", stored.read(model, finite=True))
    found = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert found["tokens"][found["end"]] == END
