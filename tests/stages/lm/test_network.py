"""What given ids cost a network in NumPy, equal to plain formulas, to MXNet and to torch."""

from __future__ import annotations

import importlib
import itertools
import tracemalloc
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file
from threadpoolctl import ThreadpoolController

from stages.lm import network as module
from stages.lm import sampling
from stages.lm.layers import State
from stages.lm.network import Network
from stages.lm.parameters import Architecture, Parameters

Ids = npt.NDArray[np.unsignedinteger]
Floats = npt.NDArray[np.floating[Any]]
HIDDEN = 16
CELLS: list[tuple[Literal["rnn", "gru", "lstm"], Literal["relu", "tanh"]]] = [
    ("rnn", "relu"),
    ("rnn", "tanh"),
    ("gru", "tanh"),
    ("lstm", "tanh"),
]
ARCHITECTURES = [
    Architecture(cell, activation, HIDDEN, layers, vocab_size, embedding_size, tied)
    for cell, activation in CELLS
    for layers, vocab_size, embedding_size, tied in (
        *((1, 10, 0, False), (2, 10, 0, False)),
        *((1, 10, 6, False), (2, 10, HIDDEN, True)),
        *((1, 200, 6, False), (2, 200, HIDDEN, True)),  # many more tokens than units
    )
]
GRU = Architecture("gru", "tanh", HIDDEN, 2, 10)
every_architecture = pytest.mark.parametrize(
    "architecture", ARCHITECTURES, ids=lambda case: "-".join(map(str, vars(case).values()))
)


def random_weights(architecture: Architecture) -> Parameters:
    """Weights and biases large enough for every term of the recurrence to tell."""
    rng = np.random.default_rng(5)
    scale = 0.15 if architecture.activation == "relu" else 0.3  # a ReLU RNN explodes early
    return {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in architecture.shapes().items()}


def random_ids(architecture: Architecture, count: int) -> Ids:
    return np.random.default_rng(1).integers(0, architecture.vocab_size, count).astype(np.uint8)


def network(architecture: Architecture) -> Network:
    return Network(architecture, random_weights(architecture))


def all_losses(ours: Network, ids: npt.NDArray[Any], states: list[State] | None = None) -> Floats:
    return np.concatenate([np.empty(0), *ours.losses(ids, states)])


def reference_losses(architecture: Architecture, parameters: Parameters, ids: Ids) -> Floats:
    """The recurrences as they are written down, in double precision."""
    weights = {name: array.astype(np.float64) for name, array in parameters.items()}
    size = architecture.hidden_size
    hidden = [np.zeros(size) for _ in range(architecture.layers)]
    memory = [np.zeros(size) for _ in range(architecture.layers)]

    def sigmoid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
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
def test_losses_equal_the_formulas(architecture: Architecture) -> None:
    ids = random_ids(architecture, 60)
    expected = reference_losses(architecture, random_weights(architecture), ids)
    np.testing.assert_allclose(all_losses(network(architecture), ids), expected, atol=1e-5)


@pytest.mark.skipif(find_spec("mxnet") is None, reason="MXNet is not installed")
@every_architecture
def test_losses_equal_those_of_mxnet(architecture: Architecture) -> None:
    gluon: Any = importlib.import_module("stages.training.gluon")
    gluon.npx.set_np()
    weights, ids = random_weights(architecture), random_ids(architecture, 60)
    theirs = gluon.RNNModel(architecture)
    theirs.initialize()
    for name, array in weights.items():
        getattr(theirs, name).set_data(gluon.mnp.array(array))
    logits, _ = theirs(gluon.mnp.array(ids[None, :-1], dtype="int32"), theirs.begin_state(1, gluon.mx.cpu()))
    expected = -gluon.npx.log_softmax(logits).asnumpy()[np.arange(59), ids[1:]]
    np.testing.assert_allclose(all_losses(network(architecture), ids), expected, atol=1e-5)


def test_losses_equal_those_of_torch_with_the_same_files(tmp_path: Path) -> None:
    torch = pytest.importorskip(
        "torch", reason="torch is no dependency: only where it is installed is it compared with"
    )
    for architecture in ARCHITECTURES:
        save_file(random_weights(architecture), tmp_path / "model.safetensors")
        weights = {name: torch.from_numpy(array) for name, array in load_file(tmp_path / "model.safetensors").items()}
        layer = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[architecture.cell]
        options = {"nonlinearity": architecture.activation} if architecture.cell == "rnn" else {}
        vocab_size, embedding_size = architecture.vocab_size, architecture.embedding_size
        theirs = torch.nn.Module()
        if embedding_size:
            theirs.embedding = torch.nn.Embedding(vocab_size, embedding_size)
        theirs.rnn = layer(embedding_size or vocab_size, HIDDEN, architecture.layers, **options)
        theirs.dense = torch.nn.Linear(HIDDEN, vocab_size)
        if architecture.tie_weights:
            theirs.dense.weight = theirs.embedding.weight
        missing, unexpected = theirs.load_state_dict(weights, strict=False)
        assert (missing, unexpected) == (["dense.weight"] if architecture.tie_weights else [], [])

        ids = random_ids(architecture, 60)
        inputs = torch.from_numpy(ids[:-1].astype(np.int64))
        embedded = theirs.embedding(inputs) if embedding_size else torch.eye(vocab_size)[inputs]
        logits = theirs.dense(theirs.rnn(embedded)[0])
        expected = -torch.log_softmax(logits, dim=1).detach().numpy()[np.arange(59), ids[1:]]
        np.testing.assert_allclose(all_losses(network(architecture), ids), expected, atol=1e-5)


@every_architecture
def test_one_token_at_a_time_gives_the_same_probabilities(architecture: Architecture) -> None:
    ours, prompt = network(architecture), [1, 2, 3]
    choose = sampling.chooser(30, 1.0, 4, 0, 1.0)
    drawn = sampling.continuation(ours, prompt, 30, choose, first=1, probabilities=True)
    ids, probabilities = zip(*drawn, strict=True)
    np.testing.assert_allclose(-np.log(probabilities), all_losses(ours, np.array([*prompt, *ids]))[2:], atol=1e-5)


@every_architecture
def test_windows_are_texts_of_their_own(architecture: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, ids = network(architecture), random_ids(architecture, 101)
    for window in (1, 7, 32, 100, 1000):
        losses = [all_losses(ours, ids[at : at + window + 1]) for at in range(0, 100, window)]
        expected = np.concatenate(losses).mean()
        assert windowed(ours, ids, window).mean() == pytest.approx(expected, abs=1e-6)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_NUMBERS", 3 * max(64, architecture.vocab_size))  # a few at once
            assert windowed(ours, ids, window).mean() == pytest.approx(expected, abs=1e-6)
    assert windowed(ours, ids, 100).mean() == pytest.approx(ours.loss(ids), abs=1e-6)
    assert len(windowed(ours, ids[:1], 7)) == 0
    assert np.isnan(ours.loss(ids[:1]))


def test_every_target_of_a_window_counts_once_and_it_goes_on_after_any_span(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, ids = network(GRU), random_ids(GRU, 100)
    monkeypatch.setattr(module, "_NUMBERS", 2 * max(64, GRU.vocab_size))
    span = ours.windowed_span(16)
    assert span == 32
    whole = windowed(ours, ids, 16)
    assert len(whole) == 99
    rest = [windowed(ours, ids[start:], 16) for start in (span, 2 * span, 3 * span)]
    assert [len(part) for part in rest] == [67, 35, 3]
    for part in rest:
        np.testing.assert_array_equal(part, whole[-len(part) :])


def windowed(ours: Network, ids: Any, window: int) -> Any:
    return np.concatenate([np.empty(0), *ours.windowed_losses(ids, window)])


def test_losses_have_the_same_bits_on_any_number_of_cores() -> None:
    architecture = Architecture("gru", "tanh", 500, 1, 28)  # wide enough for threads to divide a product otherwise
    given = architecture.initial("uniform", 0)
    ids, found = random_ids(architecture, 400), []
    for threads in (1, 2):
        with ThreadpoolController().limit(limits=threads, user_api="blas"):
            ours = Network(architecture, given)
            found.append((all_losses(ours, ids).tobytes(), windowed(ours, ids, 6).tobytes()))
    assert found[0] == found[1]


def test_whoever_leaves_last_gives_numpy_its_threads_back() -> None:
    blas = ThreadpoolController().select(user_api="blas")

    def threads() -> set[int]:
        return {library["num_threads"] for library in blas.info()}

    with blas.limit(limits=3):
        first, second, third = (module.one_thread() for _ in range(3))
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        third.__enter__()
        second.__exit__(None, None, None)
        assert threads() == {1}
        third.__exit__(None, None, None)
        assert threads() == {3}


def test_losses_do_not_depend_on_how_many_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = network(GRU)
    ids = random_ids(GRU, 300).astype(np.uint16)
    whole = all_losses(ours, ids)
    monkeypatch.setattr(module, "_NUMBERS", 7 * GRU.vocab_size)
    np.testing.assert_allclose(all_losses(ours, ids), whole, atol=1e-5)
    assert [len(chunk) for chunk in ours.losses(ids)] == [7] * 42 + [5]


def test_many_tokens_that_are_each_too_rare_to_tell_are_counted_together() -> None:
    architecture = Architecture("rnn", "relu", 1, 1, 200_000, embedding_size=1)
    weights = {name: np.zeros(shape, np.float32) for name, shape in architecture.shapes().items()}
    weights["dense.bias"][1:] = np.log(3e-8)  # next to 1, a number in single precision is the same with this or without
    found = all_losses(Network(architecture, weights), np.zeros(9, int))
    np.testing.assert_allclose(found, np.log1p(199_999 * 3e-8), rtol=1e-4)


@pytest.mark.parametrize("architecture", [GRU, replace(GRU, cell="lstm")], ids=["gru", "lstm"])
def test_a_state_carries_losses_over_any_cut(architecture: Architecture) -> None:
    ours, ids = network(architecture), random_ids(architecture, 100)
    states = ours.zero_state()
    pieces = [all_losses(ours, ids[max(start - 1, 0) : stop], states) for start, stop in ((0, 1), (1, 38), (38, 100))]
    assert [len(piece) for piece in pieces] == [0, 37, 62]
    np.testing.assert_allclose(np.concatenate(pieces), all_losses(ours, ids), atol=1e-6)


def test_many_words_cost_little_more_memory_than_the_weights() -> None:
    words = 20_000
    architecture = Architecture("lstm", "tanh", 64, 1, words, embedding_size=32)
    weights = random_weights(architecture)
    tracemalloc.start()
    Network(architecture, weights)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < sum(array.nbytes for array in weights.values())


def test_a_state_out_of_bounds_is_no_warning_and_the_callers_settings_stay(recwarn: pytest.WarningsRecorder) -> None:
    architecture = Architecture("rnn", "relu", HIDDEN, 1, 10)
    ours = Network(architecture, {name: array * 100 for name, array in random_weights(architecture).items()})
    before = np.geterr()
    for _ in ours.losses(random_ids(architecture, 9000)):
        assert np.geterr() == before
    for _ in ours.windowed_losses(random_ids(architecture, 500), 100):
        assert np.geterr() == before
    assert np.geterr() == before
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]
