"""A model of subwords: text in and text out is what it is for characters, though a token may be a part of one."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.corpus import subwords, text
from data.corpus.level import BPE
from data.corpus.text import Normalizer
from data.errors import StoreError
from data.store.fingerprint import file_digest
from data.tables.merges import Merges
from data.tables.vocab import Vocab
from stages.lm.model import LanguageModel
from stages.lm.parameters import Architecture

SAID = "The sea, the SEA!\nUnd das Meer — über dem Meer 🙂🙂.\n" * 5
PAIRS = [
    ("e", "r"),
    ("Ġ", "M"),
    ("e", "er"),
    ("ĠM", "eer"),
    ("h", "e"),
    ("t", "he"),
    ("Ġ", "s"),
    ("Ġs", "ea"),
    ("ð", "Ł"),
]
PAIRS.insert(7, ("e", "a"))
VOCAB = Vocab.merged(Counter(subwords.split(SAID)), Merges(PAIRS))
SMILE = VOCAB.ids(Merges(PAIRS).split("🙂"))
"""The ids of its three parts."""


def model(normalizer: Normalizer = "none", likely: dict[int, float] | None = None) -> LanguageModel:
    """With ``likely`` it gives these tokens these probabilities wherever they stand."""
    architecture = Architecture("gru", "tanh", 12, 1, len(VOCAB))
    rng = np.random.default_rng(5)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in architecture.shapes().items()}
    if likely:
        weights["dense.weight"][:] = 0
        weights["dense.bias"][:] = -50
        weights["dense.bias"][[*likely]] = np.log([*likely.values()])
    return LanguageModel(architecture, weights, VOCAB, "bpe", normalizer)


def write(folder: Path) -> Path:
    ours = model()
    weights = ours.architecture.initial("uniform", 5)
    save_file(weights, folder / "model.safetensors")
    VOCAB.write(folder / "vocab.arrow")
    facts = {"format": 3, **asdict(ours.architecture), "level": "bpe", "normalizer": "none", "epoch": 1}
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


def test_nothing_is_unknown_and_a_prompt_is_read_as_it_stands(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for prompt in ("Das Meer ", "你 \x00 ", "", "é"):
            assert model().sample(prompt, 5, temperature=1.0).startswith(prompt)
        assert model().prompt("\ud800") == "\ufffd" * 3
    assert not caplog.records
    assert model("book").sample("Über 12 Meer", 0) == " ber meer"
    assert model("lower+nfc").prompt("E\u0301") == "é"
    assert model().opening(np.array(VOCAB.ids(BPE.of(VOCAB).split("\n—\nDas Meer, das")))) == "Das Meer,"


def test_a_character_comes_out_once_it_is_complete() -> None:
    first, second, third = SMILE
    a = VOCAB.ids(["a"])[0]
    ours = model(likely={first: 0.4, second: 0.2, third: 0.2, a: 0.2})
    for seed in range(20):
        pieces = list(ours.stream("x", 30, 1.0, seed, probabilities=True))
        assert len(pieces) == 30
        drawn = list(ours.stream("x", 30, 1.0, seed))
        assert [added for added, _ in drawn] == [added for added, _ in pieces]
        assert {round(probability or 0, 3) for _, probability in pieces} <= {0.4, 0.2}
        assert all(len(added) <= 3 for added, _ in pieces)
    greedy = model(likely={first: 1.0})
    assert greedy.sample("x", 3) == "x" + "\ufffd" * 3
    assert [added for added, _ in greedy.stream("x", 3)] == ["", "\ufffd", "\ufffd\ufffd"]


def test_stop_strings_end_a_text_wherever_tokens_end() -> None:
    first, second, third = SMILE
    a, b = VOCAB.ids(["a", "b"])
    ours = model(likely={first: 0.3, second: 0.25, third: 0.25, a: 0.1, b: 0.1})
    seeds = range(12)
    for stop in ("🙂", "ab", "a🙂", "\ufffd", "never"):
        whole = [ours.sample("x", 40, 1.0, seed) for seed in seeds]
        ended = [ours.sample("x", 40, 1.0, seed, stop=stop) for seed in seeds]
        assert ended == [one[: one.index(stop)] if stop in one else one for one in whole]
        assert list(ours.samples("x", 40, 1.0, seeds, stop=stop)) == ended
    assert any("🙂" in one for one in whole)
    assert list(ours.samples("x", 40, 1.0, seeds)) == whole


@pytest.mark.parametrize("normalizer", ["book", "lower", "none"])
def test_a_text_is_scored_by_its_characters_wherever_it_is_cut(normalizer: Normalizer) -> None:
    ours = model(normalizer)
    whole = "".join(text.normalize([SAID], normalizer, "bpe"))
    tokens = [token for piece in subwords.split(whole) for token in Merges(PAIRS).split(piece)]
    expected = ours.network.loss(np.array(VOCAB.ids(tokens)))
    for pieces in (SAID, [SAID[at : at + 3] for at in range(0, len(SAID), 3)], ["", SAID]):
        score = ours.score(pieces)
        assert score.loss == pytest.approx(expected, abs=1e-6)
        assert (score.tokens, score.unknown_rate) == (len(tokens) - 1, 0)
        bits = expected / math.log(2) * len(tokens) / len(whole)
        assert score.bits_per_character == pytest.approx(bits, rel=1e-6)
        told = list(ours.log_probabilities(pieces))
        assert len(told) == score.tokens
        assert "".join(added for added, _ in told) == whole[len(BPE.of(VOCAB).join(tokens[:1])) :]
        assert -sum(nats for _, nats in told) == pytest.approx(expected * score.tokens, rel=1e-5)


def test_a_folder_works_alone_and_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # to import it would fail
    ours = LanguageModel.load(write(tmp_path))
    assert ours.sample("Das Meer", 0) == "Das Meer"
    assert ours.score("Das Meer 🙂").tokens == len(ours.kind.split("Das Meer 🙂")) - 1


def test_a_folder_whose_merges_are_not_its_vocabularys_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    names = ("config.json", "model.safetensors", "vocab.arrow", "merges.arrow")
    digests = {name: {"sha256": file_digest(folder / name)} for name in names}
    (folder / "manifest.json").write_text(json.dumps({"outputs": digests}))
    LanguageModel.load(folder)
    swapped = [PAIRS[1], PAIRS[0], *PAIRS[2:]]
    Merges(swapped).write(folder / "merges.arrow")
    with pytest.raises(StoreError, match=r"the content of .*merges\.arrow is not what was published"):
        LanguageModel.load(folder)
    (folder / "manifest.json").unlink()
    LanguageModel.load(folder)
    Merges(PAIRS[:-1]).write(folder / "merges.arrow")
    with pytest.raises(StoreError, match=r"merges\.arrow holds no merges that can be used"):
        LanguageModel.load(folder)
    (folder / "merges.arrow").unlink()
    with pytest.raises(StoreError, match=r"merges\.arrow holds no merges that can be used"):
        LanguageModel.load(folder)


def test_the_library_is_loaded_by_nothing_but_learning() -> None:
    found = [
        path for floor in ("data", "stages", "flows") for path in (Path(__file__).parents[3] / floor).rglob("*.py")
    ]
    named = [
        path.name for path in found if "import tokenizers" in (body := path.read_text()) or "from tokenizers" in body
    ]
    assert named == ["bpe.py"]
