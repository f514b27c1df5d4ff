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
    ("train.layers=100000000", "train.layers: '100000000' does not fit: input should be less than or equal to 100"),
    ("train.learning_rate=1e-320", "input should be greater than or equal to 1e-30"),
    ("train.learning_rate=1e308", "input should be less than or equal to 1e+30"),
    ("train.bptt_keep=1e-17", "train.bptt_keep: '1e-17' does not fit"),
    ("train.clip_norm=1e-320", "train: clip_norm has to be 1e-30 or more, or 0"),
    (f"train.hidden_size={'9' * 5000}", "train.hidden_size: '999"),
    (f"train.device=gpu:{'9' * 5000}", "train.device: 'gpu:999"),
    (f"evaluate.prefixes=[{'9' * 5000}]", "evaluate.prefixes: [999"),
    (f"evaluate.prefixes=[0x{'f' * 5000}]", "evaluate.prefixes.0: a value too large to repeat does not fit"),
    (f"evaluate.prefixes={'[' * 5000}", "is not an array"),
    ("=3", "write it as STAGE.FIELD=VALUE"),
]


@pytest.mark.parametrize(("assignment", "sentence"), MISTAKES, ids=[row[0][:40] for row in MISTAKES])
def test_what_does_not_fit_is_one_sentence(assignment: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.load(assignments=[assignment])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1], "the configuration: [1] does not fit: input should be a valid dictionary"),
        ({"train": [1]}, "train: [1] does not fit: input should be a valid dictionary"),
        ({"train": None}, "train: None does not fit"),
        ({1: 2}, "1: 1 does not fit: keys should be strings"),
    ],
)
def test_values_that_are_no_tables_are_refused(values: object, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.parse(values)
    assert str(caught.value).startswith(sentence)


def test_nothing_to_train_on_is_refused() -> None:
    shares = ["tokenize.train_share=0", "tokenize.valid_share=0.5", "tokenize.test_share=0.5"]
    with pytest.raises(ConfigError, match="train_share must be more than 0, or there is nothing to train on"):
        settings.load(assignments=shares)


def test_every_number_of_a_configuration_has_its_bounds() -> None:
    """Or an absurd one hangs where nobody can interrupt it, or divides by zero."""
    endless = ["1" + "0" * 100, "1e300"]
    numbers = [
        f"{stage}.{field}"
        for stage, section in settings.load()
        for field, value in section
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    assert len(numbers) > 30
    for name in numbers:
        for value in endless:
            with pytest.raises(ConfigError, match="does not fit"):
                settings.load(assignments=[f"{name}={value}"])


@pytest.mark.parametrize(
    "content",
    [f"x = {'9' * 5000}", f"x = {'[' * 5000}", f"{'a.' * 100_000}b = 1"],
    ids=["digits", "nested", "a key of parts"],
)
def test_a_preset_of_absurd_values_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine.toml cannot be read: it has an integer of thousands of digits"):
        settings.load(str(path))


@pytest.mark.parametrize("field", ["train.epochs", "train.learning_rate", "tokenize.min_freq", "tokenize.train_share"])
def test_true_is_no_number(tmp_path: Path, field: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{field} = true", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"^{field}: True does not fit: input should be a number$"):
        settings.load(str(path))


def test_a_preset_larger_than_settings_are_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match=r"mine.toml has more than 262,144 bytes"):
        settings.load(str(path))


@pytest.mark.parametrize("content", [b"[train\n", b"\xff\xfe", b"train = 3\n"], ids=["broken", "not UTF-8", "no table"])
def test_a_preset_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        settings.load(str(path))
    assert str(path) in str(caught.value) or str(caught.value).startswith("train: 3 does not fit")
