"""Text out of a model and losses of given text, in NumPy, equal to what MXNet computes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.errors import ConfigError, StoreError
from data.vocab import Vocab
from stages.config import TrainConfig
from stages.lm import parameters, sampler
from stages.lm.sampler import LanguageModel

ROOT = Path(__file__).parents[2]
LETTERS = Vocab(["<unk>", *" abcdefgh"], [0] * 10)
HIDDEN = 16
CELLS = [("rnn", 1), ("rnn", 2), ("gru", 1), ("gru", 3), ("lstm", 1), ("lstm", 2)]


def random_weights(cell, layers):
    """Weights and biases large enough for every term of the recurrence to tell."""
    rng = np.random.default_rng(5)
    shapes = parameters.shapes(cell, HIDDEN, layers, len(LETTERS))
    scale = 0.15 if cell == "rnn" else 0.3  # a ReLU RNN explodes early
    return {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}


def model(cell="rnn", layers=1, vocab=LETTERS, level="char", normalizer="lower"):
    return LanguageModel(cell, random_weights(cell, layers), vocab, level, normalizer)


def write(folder, **changes):
    folder.mkdir(exist_ok=True)
    description = {"format": 1, "cell": "gru", "hidden_size": HIDDEN, "layers": 2, "vocab_size": len(LETTERS)}
    description |= {"level": "char", "normalizer": "lower"} | changes
    (folder / "config.json").write_text(json.dumps(description))
    save_file(random_weights("gru", 2), folder / "model.safetensors")
    LETTERS.write(folder / "vocab.arrow")
    return folder


@pytest.mark.parametrize(("cell", "layers"), CELLS)
def test_losses_equal_those_of_mxnet(cell, layers):
    from stages.lm import gluon
    from stages.lm.device import Device

    weights = random_weights(cell, layers)
    ids = np.random.default_rng(1).integers(0, len(LETTERS), 80).astype(np.uint8)
    engine = gluon.GluonEngine(cell, HIDDEN, layers, len(LETTERS), 1, 1.0, Device("cpu"))
    engine.load_parameters(weights)
    state = engine._model.begin_state(1, gluon.mx.cpu())
    logits, _ = engine._model(gluon.mnp.array(ids[None, :-1], dtype="int32"), state)
    expected = -gluon.npx.log_softmax(logits).asnumpy()[np.arange(79), ids[1:]]
    ours = LanguageModel(cell, weights, LETTERS, "char", "none")
    np.testing.assert_allclose(np.concatenate(list(ours.losses(ids))), expected, atol=1e-5)
    assert ours.loss(ids) == pytest.approx(float(expected.mean()), abs=1e-5)


@pytest.mark.parametrize(("cell", "layers"), CELLS)
def test_sampling_says_what_the_losses_find_likeliest(cell, layers):
    """The two ways through the layers, one token at a time and many at once, are one model."""
    ours = model(cell, layers)
    ids = np.array(LETTERS.ids(ours.sample("abc", 20)), np.uint8)
    for position in range(3, len(ids)):
        last = [list(ours.losses(np.append(ids[:position], other)))[-1][-1] for other in range(1, len(LETTERS))]
        assert np.argmin(last) + 1 == ids[position]


def test_losses_do_not_depend_on_how_many_are_taken_at_once(monkeypatch):
    ours = model("lstm", 2)
    ids = np.random.default_rng(2).integers(0, len(LETTERS), 300).astype(np.uint16)
    whole = np.concatenate(list(ours.losses(ids)))
    done = []
    monkeypatch.setattr(sampler, "_LOGITS", 7 * len(LETTERS))
    np.testing.assert_allclose(np.concatenate(list(ours.losses(ids))), whole, atol=1e-5)
    ours.loss(ids, done.append)
    assert done == [*range(7, 299, 7), 299]


def test_text_is_the_normalised_prefix_and_the_continuation():
    text = model().sample("AbC ", 30)
    assert text.startswith("abc ")
    assert len(text) == 34
    assert model().sample("AbC ", 0) == "abc "
    assert len(model().sample("", 5)) == 5
    assert model(normalizer="book").sample("A--b", 3).startswith("a b")


def test_words_are_joined_with_a_space():
    vocab = Vocab(["<unk>", "time", "machine", "the", "a", "b", "c", "d", "e", "f"], [0] * 10)
    text = model(vocab=vocab, level="word").sample("The  time", 4)
    assert text.startswith("the time ")
    assert len(text.split(" ")) == 6


def test_unknown_is_read_and_never_said():
    ours = model()
    ours._dense[1][0] = 100
    assert ours.sample("aXYZ?b", 20).startswith("axyz?b")
    for temperature in (0, 0.5, 50):
        assert "<unk>" not in ours.sample("q", 50, temperature)
    assert ours.sample("a?", 9)[2:] == ours.sample("a!", 9)[2:]


def test_a_seed_draws_the_same_text_again_and_another_one_another():
    ours = model("gru")
    texts = [ours.sample("ab", 40, 1.0, seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_temperature_goes_from_the_likeliest_to_anything():
    ours = model("lstm")
    greedy = ours.sample("ab", 40)
    assert ours.sample("ab", 40, 1e-300) == ours.sample("ab", 40, 1e-9) == greedy
    assert set(ours.sample("ab", 600, float("inf"))) == set(" abcdefgh")
    for wrong in (-1, float("nan")):
        with pytest.raises(ConfigError, match="temperature must be 0 or more"):
            ours.sample("ab", 4, wrong)


def test_tokens_are_drawn_as_the_softmax_says():
    weights = random_weights("gru", 1)
    weights["dense.weight"][:] = 0
    weights["dense.bias"][:] = np.log([0.5, 0.7, 0.2, 0.1, *[1e-9] * 6])
    ours = LanguageModel("gru", weights, LETTERS, "char", "none")
    for temperature, shares in ((1.0, [0.7, 0.2, 0.1]), (0.5, [0.907, 0.074, 0.019])):
        text = ours.sample("", 4000, temperature)
        assert [text.count(letter) / 4000 for letter in " ab"] == pytest.approx(shares, abs=0.03)


def test_untrained_is_where_training_starts():
    config = TrainConfig(cell="lstm", hidden_size=HIDDEN, layers=2, seed=7)
    ours = LanguageModel.untrained(config, LETTERS, "char", "lower")
    start = LanguageModel("lstm", parameters.initial("lstm", HIDDEN, 2, 10, 7), LETTERS, "char", "lower")
    assert ours.sample("ab", 30, 1.0) == start.sample("ab", 30, 1.0)
    ids = np.arange(10, dtype=np.uint8)
    assert ours.loss(ids) == start.loss(ids) == pytest.approx(np.log(10), abs=0.01)


def test_a_folder_is_enough_and_neither_mxnet_nor_prefect_is_loaded(tmp_path):
    code = (
        "import sys; from pathlib import Path; from stages.lm.sampler import LanguageModel; "
        f"print(LanguageModel.load(Path({str(write(tmp_path / 'model'))!r})).sample('ab', 20)); "
        "print({'mxnet', 'prefect'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == model("gru", 2).sample("ab", 20) + "\nset()\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "config.json does not describe a model .it has format 2"),
        ({"cell": "elman"}, "config.json does not describe a model"),
        ({"level": "byte"}, "config.json does not describe a model"),
        ({"layers": "two"}, "config.json does not describe a model"),
        ({"hidden_size": 8}, "model.safetensors does not fit"),
        ({"layers": 3}, "model.safetensors does not fit"),
    ],
)
def test_a_foreign_model_is_refused_by_name(tmp_path, changes, said):
    with pytest.raises(StoreError, match=said):
        LanguageModel.load(write(tmp_path / "model", **changes))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.arrow"])
def test_a_damaged_or_missing_file_is_named(tmp_path, name):
    path = write(tmp_path / "model") / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StoreError, match=name):
        LanguageModel.load(tmp_path / "model")
    path.unlink()
    with pytest.raises(StoreError, match=name):
        LanguageModel.load(tmp_path / "model")


def test_a_vocabulary_of_another_size_is_refused(tmp_path):
    Vocab(["<unk>", "a"], [0, 1]).write(write(tmp_path / "model") / "vocab.arrow")
    with pytest.raises(StoreError, match=r"vocab.arrow has 2 tokens and the model 10"):
        LanguageModel.load(tmp_path / "model")
