"""What a model makes of given text, in NumPy, equal to plain formulas, to MXNet and to torch; loading it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from data.corpus import text
from data.errors import ConfigError, StoreError
from data.tables.vocab import Vocab
from stages.config import TrainConfig
from stages.lm import model as sampler
from stages.lm.model import LanguageModel
from stages.lm.parameters import Architecture

ROOT = Path(__file__).parents[3]
LETTERS = Vocab(["<unk>", *" abcdefgh"], [0] * 10)
HIDDEN = 16
GRU = Architecture("gru", "tanh", HIDDEN, 2, len(LETTERS))
ARCHITECTURES = [
    Architecture(cell, activation, HIDDEN, layers, vocab_size, embedding_size, tied)
    for cell, activation in (("rnn", "relu"), ("rnn", "tanh"), ("gru", "tanh"), ("lstm", "tanh"))
    for layers, vocab_size, embedding_size, tied in (
        *((1, 10, 0, False), (2, 10, 0, False)),
        *((1, 10, 6, False), (2, 10, HIDDEN, True)),
        *((1, 200, 6, False), (2, 200, HIDDEN, True)),  # many more tokens than units
    )
]
every_architecture = pytest.mark.parametrize(
    "architecture", ARCHITECTURES, ids=lambda case: "-".join(map(str, vars(case).values()))
)


def random_weights(architecture):
    """Weights and biases large enough for every term of the recurrence to tell."""
    rng = np.random.default_rng(5)
    scale = 0.15 if architecture.activation == "relu" else 0.3  # a ReLU RNN explodes early
    return {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in architecture.shapes().items()}


def random_ids(architecture, count, seed=1):
    return np.random.default_rng(seed).integers(0, architecture.vocab_size, count).astype(np.uint8)


def model(architecture, level="char", normalizer="lower"):
    """With letters for tokens, and other characters where those do not suffice."""
    vocab = Vocab(["<unk>", *map(chr, range(97, 96 + architecture.vocab_size))], [0] * architecture.vocab_size)
    return LanguageModel(architecture, random_weights(architecture), vocab, level, normalizer)


def all_losses(ours, ids, states=None):
    return np.concatenate([np.empty(0), *ours.losses(ids, states)])


def write(folder, architecture=GRU, **changes):
    folder.mkdir(exist_ok=True)
    description = {"format": 2, **asdict(architecture), "level": "char", "normalizer": "lower", "epoch": 3} | changes
    (folder / "config.json").write_text(json.dumps(description))
    save_file(random_weights(architecture), folder / "model.safetensors")
    LETTERS.write(folder / "vocab.arrow")
    return folder


# --- what it computes


def reference_losses(architecture, weights, ids):
    """The recurrences as they are written down, in double precision."""
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    size = architecture.hidden_size
    hidden = [np.zeros(size) for _ in range(architecture.layers)]
    memory = [np.zeros(size) for _ in range(architecture.layers)]

    def sigmoid(values):
        return 1 / (1 + np.exp(-values))

    losses = []
    for id_, target in itertools.pairwise(ids):
        inputs = (
            weights["embedding.weight"][id_] if architecture.embedding_size else np.eye(architecture.vocab_size)[id_]
        )
        for layer in range(architecture.layers):
            below = weights[f"rnn.weight_ih_l{layer}"] @ inputs + weights[f"rnn.bias_ih_l{layer}"]
            own = weights[f"rnn.weight_hh_l{layer}"] @ hidden[layer] + weights[f"rnn.bias_hh_l{layer}"]
            if architecture.cell == "rnn":
                both = below + own
                hidden[layer] = np.tanh(both) if architecture.activation == "tanh" else np.where(both > 0, both, 0)
            elif architecture.cell == "gru":
                reset, update = (sigmoid(below[part] + own[part]) for part in (slice(0, size), slice(size, 2 * size)))
                new = np.tanh(below[2 * size :] + reset * own[2 * size :])
                hidden[layer] = (1 - update) * new + update * hidden[layer]
            else:
                entering, forgetting, new, leaving = np.split(below + own, 4)
                memory[layer] = sigmoid(forgetting) * memory[layer] + sigmoid(entering) * np.tanh(new)
                hidden[layer] = sigmoid(leaving) * np.tanh(memory[layer])
            inputs = hidden[layer]
        dense = weights["embedding.weight" if architecture.tie_weights else "dense.weight"]
        logits = dense @ inputs + weights["dense.bias"]
        losses.append(np.log(np.exp(logits).sum()) - logits[target])
    return np.array(losses)


@every_architecture
def test_losses_equal_the_formulas(architecture):
    ids = random_ids(architecture, 60)
    expected = reference_losses(architecture, random_weights(architecture), ids)
    np.testing.assert_allclose(all_losses(model(architecture), ids), expected, atol=1e-5)


@every_architecture
def test_losses_equal_those_of_mxnet(architecture):
    from stages.training import gluon

    gluon.npx.set_np()
    weights, ids = random_weights(architecture), random_ids(architecture, 60)
    network = gluon.RNNModel(architecture)
    network.initialize()
    for name, array in weights.items():
        getattr(network, name).set_data(gluon.mnp.array(array))
    logits, _ = network(gluon.mnp.array(ids[None, :-1], dtype="int32"), network.begin_state(1, gluon.mx.cpu()))
    expected = -gluon.npx.log_softmax(logits).asnumpy()[np.arange(59), ids[1:]]
    np.testing.assert_allclose(all_losses(model(architecture), ids), expected, atol=1e-5)


def test_losses_equal_those_of_torch_with_the_same_files(tmp_path):
    torch = pytest.importorskip(
        "torch", reason="torch is no dependency: only where it is installed is it compared with"
    )
    for architecture in ARCHITECTURES:
        save_file(random_weights(architecture), tmp_path / "model.safetensors")
        weights = {name: torch.from_numpy(array) for name, array in load_file(tmp_path / "model.safetensors").items()}
        layer = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[architecture.cell]
        options = {"nonlinearity": architecture.activation} if architecture.cell == "rnn" else {}
        vocab_size, embedding_size = architecture.vocab_size, architecture.embedding_size
        network = torch.nn.Module()
        if embedding_size:
            network.embedding = torch.nn.Embedding(vocab_size, embedding_size)
        network.rnn = layer(embedding_size or vocab_size, HIDDEN, architecture.layers, **options)
        network.dense = torch.nn.Linear(HIDDEN, vocab_size)
        if architecture.tie_weights:
            network.dense.weight = network.embedding.weight
        missing, unexpected = network.load_state_dict(weights, strict=False)
        assert (missing, unexpected) == (["dense.weight"] if architecture.tie_weights else [], [])

        ids = random_ids(architecture, 60)
        inputs = torch.from_numpy(ids[:-1].astype(np.int64))
        embedded = network.embedding(inputs) if embedding_size else torch.eye(vocab_size)[inputs]
        logits = network.dense(network.rnn(embedded)[0])
        expected = -torch.log_softmax(logits, dim=1).detach().numpy()[np.arange(59), ids[1:]]
        np.testing.assert_allclose(all_losses(model(architecture), ids), expected, atol=1e-5)


@every_architecture
def test_one_token_at_a_time_gives_the_same_probabilities(architecture):
    ours = model(architecture)
    pieces, probabilities = zip(*ours.stream("abc", 30, 1.0, 4, probabilities=True), strict=True)
    ids = np.array(ours.vocab.ids(["a", "b", "c", *pieces]), np.uint8)
    np.testing.assert_allclose(-np.log(probabilities), all_losses(ours, ids)[2:], atol=1e-5)


@every_architecture
def test_windows_are_texts_of_their_own(architecture, monkeypatch):
    ours, ids = model(architecture), random_ids(architecture, 301)
    for window in (1, 7, 32, 300, 1000):
        losses = [all_losses(ours, ids[at : at + window + 1]) for at in range(0, 300, window)]
        expected = np.concatenate(losses).mean()
        assert ours.windowed_loss(ids, window) == pytest.approx(expected, abs=1e-6)
        with monkeypatch.context() as patch:
            patch.setattr(sampler, "_NUMBERS", 3 * max(64, architecture.vocab_size))  # a few at once
            assert ours.windowed_loss(ids, window) == pytest.approx(expected, abs=1e-6)
    assert ours.windowed_loss(ids, 300) == pytest.approx(ours.loss(ids), abs=1e-6)
    assert np.isnan(ours.windowed_loss(ids[:1], 7))


def test_every_target_of_a_window_counts_once():
    ours, ids, done = model(GRU), random_ids(GRU, 40), []
    ours.windowed_loss(ids, 16, done.append)
    assert done[-1] == 39
    assert done == sorted(done)


def test_losses_do_not_depend_on_how_many_are_taken_at_once(monkeypatch):
    ours = model(GRU)
    ids = random_ids(GRU, 300).astype(np.uint16)
    whole = all_losses(ours, ids)
    done = []
    monkeypatch.setattr(sampler, "_NUMBERS", 7 * len(LETTERS))
    np.testing.assert_allclose(all_losses(ours, ids), whole, atol=1e-5)
    ours.loss(ids, done.append)
    assert done == [*range(7, 299, 7), 299]


@pytest.mark.parametrize("architecture", [GRU, replace(GRU, cell="lstm")], ids=["gru", "lstm"])
def test_a_state_carries_losses_over_any_cut(architecture):
    ours, ids = model(architecture), random_ids(architecture, 100)
    states = ours.zero_state()
    parts = [all_losses(ours, ids[max(start - 1, 0) : stop], states) for start, stop in ((0, 1), (1, 38), (38, 100))]
    assert [len(part) for part in parts] == [0, 37, 62]
    np.testing.assert_allclose(np.concatenate(parts), all_losses(ours, ids), atol=1e-6)


def test_many_words_cost_little_more_memory_than_the_weights():
    words = 20_000
    vocab = Vocab(["<unk>", *map(str, range(1, words))], [0] * words)
    architecture = Architecture("lstm", "tanh", 64, 1, words, embedding_size=32)
    weights = random_weights(architecture)
    tracemalloc.start()
    LanguageModel(architecture, weights, vocab, "word", "none")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < sum(array.nbytes for array in weights.values())


def test_a_state_out_of_bounds_is_no_warning_and_the_callers_settings_stay(recwarn):
    architecture = Architecture("rnn", "relu", HIDDEN, 1, len(LETTERS))
    weights = {name: array * 100 for name, array in random_weights(architecture).items()}
    ours = LanguageModel(architecture, weights, LETTERS, "char", "lower")
    before = np.geterr()
    streams = [ours.stream("ab", 200, 1.0, seed, probabilities=True) for seed in (0, 1)]
    for pair in zip(*streams, strict=True):
        assert np.geterr() == before
        assert all(0 <= probability <= 1 for _, probability in pair)
    for _ in ours.losses(random_ids(architecture, 9000)):
        assert np.geterr() == before
    ours.windowed_loss(random_ids(architecture, 500), 100)
    assert np.geterr() == before
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


def test_untrained_is_where_training_starts():
    config = TrainConfig(cell="lstm", hidden_size=HIDDEN, layers=2, initializer="uniform", embedding_size=4, seed=7)
    ours = LanguageModel.untrained(config, LETTERS, "char", "lower")
    architecture = Architecture("lstm", "tanh", HIDDEN, 2, len(LETTERS), 4)
    start = LanguageModel(architecture, architecture.initial("uniform", 7), LETTERS, "char", "lower")
    assert ours.sample("ab", 30, 1.0) == start.sample("ab", 30, 1.0)
    ids = np.arange(10, dtype=np.uint8)
    assert ours.loss(ids) == start.loss(ids) == pytest.approx(np.log(10), abs=0.3)


# --- scores


def test_a_score_is_what_the_losses_amount_to():
    ours = LanguageModel(GRU, random_weights(GRU), LETTERS, "char", "lower")
    score = ours.score("AbCd É?abc")
    ids = np.array(LETTERS.encode("abcd é?abc", "char"), np.uint8)
    assert score.loss == pytest.approx(ours.loss(ids), abs=1e-6)
    assert score.perplexity == pytest.approx(np.exp(score.loss))
    assert score.bits_per_character == pytest.approx(score.loss / np.log(2))
    assert score.tokens == 9
    assert score.unknown_rate == 0.2
    listed = list(ours.log_probabilities("AbCd É?abc"))
    assert "".join(token for token, _ in listed) == "bcd é?abc"
    assert -np.mean([value for _, value in listed]) == pytest.approx(score.loss, abs=1e-6)


@pytest.mark.parametrize("normalizer", ["book", "lower", "none"])
@pytest.mark.parametrize("level", ["char", "word"])
def test_a_text_is_scored_as_training_would_read_it_wherever_it_is_cut(level, normalizer):
    said = "The sea, the SEA!\nAnd a  light\n\nover the sea ΣΑΣ.\n" * 40
    tokens = "".join(text.normalize([said], normalizer, level))
    tokens = tokens.split() if level == "word" else list(tokens)
    vocab = Vocab(["<unk>", *sorted(set(tokens))[1:]], [0] * len(set(tokens)))
    architecture = replace(GRU, vocab_size=len(vocab))
    ours = LanguageModel(architecture, random_weights(architecture), vocab, level, normalizer)
    expected = ours.loss(np.array(vocab.ids(tokens)))
    for pieces in (said, [said], [said[at : at + 3] for at in range(0, len(said), 3)], ["", said[:1], "", said[1:]]):
        score = ours.score(pieces)
        assert score.loss == pytest.approx(expected, abs=1e-6)
        assert score.tokens == len(tokens) - 1
        assert score.unknown_rate == pytest.approx(tokens.count(sorted(set(tokens))[0]) / len(tokens))
        characters = len(" ".join(tokens)) + 1 if level == "word" else len(tokens)
        bits = expected / np.log(2) * len(tokens) / characters
        assert score.bits_per_character == pytest.approx(bits, rel=1e-6)
        assert [token for token, _ in ours.log_probabilities(pieces)] == tokens[1:]


def test_a_large_text_is_not_held_as_a_whole():
    architecture = Architecture("rnn", "relu", 2, 1, len(LETTERS))
    ours = LanguageModel(architecture, random_weights(architecture), LETTERS, "char", "none")
    tracemalloc.start()
    score = ours.score("abcdefgh" * 500 for _ in range(40))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert score.tokens == 159_999
    assert peak < 2_000_000


@pytest.mark.parametrize(("level", "said"), [("char", ""), ("char", "a"), ("word", " alone\n"), ("word", "  ")])
def test_a_text_in_which_nothing_is_predicted_is_refused(level, said):
    ours = LanguageModel(GRU, random_weights(GRU), LETTERS, level, "none")
    count = len(said.split()) if level == "word" else len(said)
    with pytest.raises(ConfigError, match=rf"too short: normalised \(none\) it has {count} (characters|words)"):
        ours.score(said)


# --- loading


def test_a_folder_is_enough_and_neither_mxnet_nor_prefect_is_loaded(tmp_path):
    code = (
        "import sys; from pathlib import Path; from stages.lm.model import LanguageModel; "
        f"model = LanguageModel.load(Path({str(write(tmp_path / 'model'))!r})); "
        "print(model.sample('ab', 20)); print(model.score('abc').tokens); "
        "print({'mxnet', 'prefect'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ours = LanguageModel(GRU, random_weights(GRU), LETTERS, "char", "lower")
    assert said == ours.sample("ab", 20) + "\n2\nset()\n"


@pytest.mark.parametrize("changes", [{}, {"embedding_size": 4}, {"embedding_size": HIDDEN, "tie_weights": True}])
def test_an_architecture_comes_back_from_its_description(tmp_path, changes):
    architecture = replace(GRU, **changes)
    loaded = LanguageModel.load(write(tmp_path / "model", architecture))
    assert loaded.architecture == architecture
    ours = LanguageModel(architecture, random_weights(architecture), LETTERS, "char", "lower")
    assert loaded.sample("ab", 20, 1.0) == ours.sample("ab", 20, 1.0)


@pytest.mark.parametrize(("cell", "activation"), [("rnn", "relu"), ("gru", "tanh"), ("lstm", "tanh")])
def test_a_model_of_the_first_format_is_one_hot_and_relu(tmp_path, cell, activation):
    architecture = Architecture(cell, activation, HIDDEN, 2, len(LETTERS))
    folder = write(tmp_path / "model", architecture)
    old = {"format": 1, "cell": cell, "hidden_size": HIDDEN, "layers": 2, "vocab_size": len(LETTERS)}
    (folder / "config.json").write_text(json.dumps({**old, "level": "char", "normalizer": "lower", "epoch": 3}))
    loaded = LanguageModel.load(folder)
    assert loaded.architecture == architecture
    ids = random_ids(architecture, 30)
    expected = reference_losses(architecture, random_weights(architecture), ids)
    np.testing.assert_allclose(all_losses(loaded, ids), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 3}, "config.json does not describe a model .it has format 3, this program reads 1 to 2"),
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
def test_a_foreign_model_is_refused_by_name(tmp_path, changes, said):
    with pytest.raises(StoreError, match=said):
        LanguageModel.load(write(tmp_path / "model", **changes))


@pytest.mark.parametrize("content", ["[]", "3", "{}", "", '{"format": 2, "cell": "gru"}'])
def test_a_description_that_is_none_is_refused(tmp_path, content):
    (write(tmp_path / "model") / "config.json").write_text(content)
    with pytest.raises(StoreError, match=r"config.json does not describe a model .*: train again"):
        LanguageModel.load(tmp_path / "model")


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
