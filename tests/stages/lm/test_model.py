"""A model's folder: what it holds is all that a model is, and what does not fit is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.corpus.level import LEVELS
from data.errors import StoreError
from data.store.fingerprint import file_digest
from data.tables.vocab import Vocab
from stages.config import TrainConfig
from stages.lm.model import LanguageModel
from stages.lm.parameters import Architecture

ROOT = Path(__file__).parents[3]
LETTERS = Vocab(["<unk>", *" abcdefgh"], [0] * 10)
HIDDEN = 16
GRU = Architecture("gru", "tanh", HIDDEN, 2, len(LETTERS))


def model(architecture: Architecture) -> LanguageModel:
    return LanguageModel(architecture, architecture.initial("uniform", 5), LETTERS, "char", "lower")


def write(folder: Path, architecture: Architecture = GRU, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    description = {"format": 2, **asdict(architecture), "level": "char", "normalizer": "lower", "epoch": 3} | changes
    (folder / "config.json").write_text(json.dumps(description))
    save_file(architecture.initial("uniform", 5), folder / "model.safetensors")
    LETTERS.write(folder / "vocab.arrow")
    return folder


@pytest.mark.parametrize(
    ("level", "text", "opening"),
    [
        ("char", "\n  A fair\nHAND\n", "a fair"),
        ("char", "* * *\n«Ὅτε ἦν", "«ὅτε ἦν"),
        ("char", "道可道非常道名可名非常名無名天地之始有名萬物之母", "道可道非常道名可名非常名無名天地之始有名"),
        ("char", "internationalisation committees", "internationalisation"),
        ("char", "…?\n", ""),
        ("word", "the <unk> cat sat", "the cat"),
    ],
)
def test_how_a_text_begins_is_something_to_go_on_from(level: Literal["char", "word"], text: str, opening: str) -> None:
    tokens = LEVELS[level].split(text.lower())
    vocab = Vocab.build(Counter(tokens))
    ours = LanguageModel.untrained(TrainConfig(hidden_size=4), vocab, level, "lower")
    assert ours.opening(np.array(vocab.ids(tokens), np.uint8)) == opening
    assert ours.prompt(opening) == opening


def test_untrained_is_where_training_starts() -> None:
    config = TrainConfig(cell="lstm", hidden_size=HIDDEN, layers=2, initializer="uniform", embedding_size=4, seed=7)
    ours = LanguageModel.untrained(config, LETTERS, "char", "lower")
    architecture = Architecture("lstm", "tanh", HIDDEN, 2, len(LETTERS), 4)
    start = LanguageModel(architecture, architecture.initial("uniform", 7), LETTERS, "char", "lower")
    assert ours.sample("ab", 30, 1.0) == start.sample("ab", 30, 1.0)
    ids = np.arange(10, dtype=np.uint8)
    assert ours.network.loss(ids) == start.network.loss(ids) == pytest.approx(np.log(10), abs=0.3)


def test_a_folder_is_enough_and_neither_mxnet_nor_prefect_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from stages.lm.model import LanguageModel; "
        f"model = LanguageModel.load({str(write(tmp_path / 'model'))!r}); "
        "print(model.sample('ab', 20)); print(model.score('abc').tokens); "
        "print({'mxnet', 'prefect'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ours = model(GRU)
    assert said == ours.sample("ab", 20) + "\n2\nset()\n"


@pytest.mark.parametrize("changes", [{}, {"embedding_size": 4}, {"embedding_size": HIDDEN, "tie_weights": True}])
def test_an_architecture_comes_back_from_its_description(tmp_path: Path, changes: dict[str, Any]) -> None:
    architecture = replace(GRU, **changes)
    loaded = LanguageModel.load(write(tmp_path / "model", architecture))
    assert loaded.architecture == architecture
    ours = model(architecture)
    assert loaded.sample("ab", 20, 1.0) == ours.sample("ab", 20, 1.0)


@pytest.mark.parametrize(("cell", "activation"), [("rnn", "relu"), ("gru", "tanh"), ("lstm", "tanh")])
def test_a_model_of_the_first_format_is_one_hot_and_relu(
    tmp_path: Path, cell: Literal["rnn", "gru", "lstm"], activation: Literal["relu", "tanh"]
) -> None:
    architecture = Architecture(cell, activation, HIDDEN, 2, len(LETTERS))
    folder = write(tmp_path / "model", architecture)
    old = {"format": 1, "cell": cell, "hidden_size": HIDDEN, "layers": 2, "vocab_size": len(LETTERS)}
    (folder / "config.json").write_text(json.dumps({**old, "level": "char", "normalizer": "lower", "epoch": 3}))
    loaded = LanguageModel.load(folder)
    assert loaded.architecture == architecture
    assert loaded.sample("ab", 20, 1.0) == model(architecture).sample("ab", 20, 1.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 8}, "config.json has format 8, of a newer version of rnnlm, and this one reads formats up to 7"),
        ({"format": 0}, "config.json does not describe a model .it has format 0, this version reads 1 to 7"),
        ({"format": 7}, "its format and its level do not agree"),
        ({"level": "letter"}, "its format and its level do not agree"),
        ({"format": 5}, "it has no 'mixture'"),
        ({"format": 5, "mixture": {"shares": []}}, "its shares of network and n-gram are none"),
        ({"format": 5, "mixture": {"shares": [0.5, 1.0]}}, "its shares of network and n-gram are none"),
        ({"format": 5, "mixture": {"shares": [0.5, "half"]}}, "its shares of network and n-gram are none"),
        ({"format": 5, "mixture": {"shares": [0.5]}}, "ngrams.arrow"),
        ({"format": 6}, "its networks cannot be 1"),
        ({"format": 6, "networks": 1}, "its networks cannot be 1"),
        ({"format": 6, "networks": True}, "its networks cannot be True"),
        ({"format": 6, "networks": 2}, r"does not fit the model in config.json .see dense.bias"),
        ({"format": 6, "networks": 1 << 40}, r"does not fit the model in config.json .see its networks"),
        ({"format": None}, "it has format None"),
        ({"cell": "elman"}, "its cell cannot be 'elman'"),
        ({"cell": ["gru"]}, "its cell cannot be"),
        ({"activation": "relu"}, "its activation cannot be 'relu'"),
        ({"cell": "rnn", "activation": "sigmoid"}, "its activation cannot be 'sigmoid'"),
        ({"level": "byte"}, "its level or its normalizer is unknown"),
        ({"layers": "two"}, "its layers cannot be 'two'"),
        ({"layers": 0}, "its layers cannot be 0"),
        ({"hidden_size": True}, "its hidden_size cannot be True"),
        ({"embedding_size": -1}, "its embedding_size cannot be -1"),
        ({"tie_weights": True}, "its tie_weights cannot be True"),
        ({"tie_weights": "no"}, "its tie_weights cannot be 'no'"),
        ({"hidden_size": 8}, "model.safetensors does not fit"),
        ({"layers": 3}, "model.safetensors does not fit"),
        ({"embedding_size": 4}, "model.safetensors does not fit"),
        ({"embedding_size": HIDDEN, "tie_weights": True}, "model.safetensors does not fit"),
    ],
)
def test_a_foreign_model_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StoreError, match=said):
        LanguageModel.load(write(tmp_path / "model", **changes))


@pytest.mark.parametrize("content", ["[]", "3", "{}", "", '{"format": 2, "cell": "gru"}'])
def test_a_description_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (write(tmp_path / "model") / "config.json").write_text(content)
    with pytest.raises(StoreError, match=r"config.json does not describe a model .*: train again"):
        LanguageModel.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.arrow"])
def test_a_damaged_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "model") / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StoreError, match=name):
        LanguageModel.load(tmp_path / "model")
    path.unlink()
    with pytest.raises(StoreError, match=name):
        LanguageModel.load(tmp_path / "model")


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    Vocab(["<unk>", "a"], [0, 1]).write(write(tmp_path / "model") / "vocab.arrow")
    with pytest.raises(StoreError, match=r"vocab.arrow has 2 tokens and the model 10"):
        LanguageModel.load(tmp_path / "model")


def test_tokens_that_no_text_of_its_level_has_are_named(tmp_path: Path) -> None:
    Vocab(["<unk>", *" abcdefg", "\x1b[2J"], [0] * 10).write(write(tmp_path) / "vocab.arrow")
    with pytest.raises(StoreError, match=r"vocab\.arrow has '\\x1b\[2J', which is no character: train again"):
        LanguageModel.load(tmp_path)


def test_a_model_is_what_the_manifest_beside_it_names(tmp_path: Path) -> None:
    names = ("config.json", "model.safetensors", "vocab.arrow")
    digests = {name: {"sha256": file_digest(write(tmp_path) / name)} for name in names}
    (tmp_path / "manifest.json").write_text(json.dumps({"outputs": digests}))
    LanguageModel.load(tmp_path)
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-3] ^= 1  # another weight, and as good as any
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(StoreError, match=r"model\.safetensors is not what was published: train again"):
        LanguageModel.load(tmp_path)
    (tmp_path / "manifest.json").unlink()
    LanguageModel.load(tmp_path)
