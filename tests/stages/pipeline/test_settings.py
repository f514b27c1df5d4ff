"""Where settings come from, and the sentence for each that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import ConfigError
from stages.pipeline import settings


def test_the_last_assignment_of_a_field_holds_and_the_corpus_is_one() -> None:
    config = settings.load("sample", "mine.txt", ["train.epochs=3", "train.epochs=4"])
    assert (config.download.corpus, config.train.epochs) == ("mine.txt", 4)
    assert settings.load("sample", "mine.txt", ["download.corpus=other.txt"]).download.corpus == "other.txt"


def test_a_field_of_several_values_takes_one_or_an_array() -> None:
    assert settings.load(assignments=["evaluate.prefixes=the sea"]).evaluate.prefixes == ("the sea",)
    assert settings.load(assignments=['evaluate.prefixes=["a", "b"]']).evaluate.prefixes == ("a", "b")


def test_a_preset_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text("[train]\nepochs = 3\n", encoding="utf-8-sig")
    assert settings.load(str(preset)).train.epochs == 3


def test_headers_that_do_not_fit_are_not_repeated(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text('[download]\nheaders = "Authorization: s3cr3t"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^download.headers: input should be a valid tuple$"):
        settings.load(str(preset))


MISTAKES = [
    ('evaluate.prefixes=["a', 'evaluate.prefixes: ["a is not an array; write it as ["one", "two"]'),
    ('evaluate.prefixes=[""]', "evaluate.prefixes"),
    ("train.device=tpu", "train.device: 'tpu' does not fit: should be auto, cpu, gpu or gpu:N"),
    ("tokenize.train_share=0.5", "tokenize: train_share, valid_share and test_share must add up to 1, not 0.6"),
    ("train.tie_weights=true", "train: tie_weights needs an embedding_size of hidden_size"),
    ("train.schedule=step", "train: schedule=step needs decay_epochs of 1 or more"),
    ("training.epochs=3", "training: there is no stage 'training'; did you mean 'train'?"),
    ("train.nonsense=3", "train.nonsense: the stage train has no field 'nonsense'; its fields are cell,"),
    ("train.learning_rate=nan", "train.learning_rate: 'nan' does not fit"),
    ("=3", "write it as STAGE.FIELD=VALUE"),
]


@pytest.mark.parametrize(("assignment", "sentence"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_what_does_not_fit_is_one_sentence(assignment: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.load(assignments=[assignment])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_to_train_on_is_refused() -> None:
    shares = ["tokenize.train_share=0", "tokenize.valid_share=0.5", "tokenize.test_share=0.5"]
    with pytest.raises(ConfigError, match="train_share must be more than 0, or there is nothing to train on"):
        settings.load(assignments=shares)


@pytest.mark.parametrize("content", [b"[train\n", b"\xff\xfe", b"train = 3\n"], ids=["broken", "not UTF-8", "no table"])
def test_a_preset_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        settings.load(str(path))
    assert str(path) in str(caught.value) or str(caught.value).startswith("train: 3 does not fit")
