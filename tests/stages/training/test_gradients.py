"""The engine's gradients against an independent implementation in float64, with everything that can be switched on.

The independent one knows no backpropagation: it computes the loss in complex numbers, and a gradient's entry is the
imaginary part after an imaginary step of 1e-30 in that weight (Squire and Trapp, "Using Complex Variables to Estimate
Derivatives of Real Functions", SIAM Review 1998), exact to the last digits because nothing is subtracted.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stages.config import TrainConfig
from stages.lm.parameters import Architecture
from stages.training import dropout
from stages.training.device import Device
from stages.training.gluon import GluonEngine

VOCAB, HIDDEN, BATCH, STEPS = 6, 5, 3, 4
PLAIN = {"hidden_size": HIDDEN, "batch_size": BATCH, "num_steps": STEPS, "clip_norm": 0, "initializer": "uniform"}
DROPOUTS = {"input_dropout": 0.3, "hidden_dropout": 0.4, "output_dropout": 0.5, "weight_dropout": 0.3}


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def step(architecture, weights, layer, row, state, mask):
    """One layer, one time step, as ``torch.nn`` documents its cells."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weight_ih, weight_hh, bias_ih, bias_hh = (weights[f"rnn.{name}_l{layer}"] for name in names)
    given, fed_back = row @ weight_ih.T + bias_ih, state[0] @ (weight_hh * mask).T + bias_hh
    if architecture.cell == "rnn":
        total = given + fed_back
        return [np.tanh(total) if architecture.activation == "tanh" else np.where(total.real > 0, total, 0)]
    if architecture.cell == "gru":
        (reset, update, new), (reset2, update2, new2) = np.split(given, 3, -1), np.split(fed_back, 3, -1)
        reset, update = sigmoid(reset + reset2), sigmoid(update + update2)
        return [(1 - update) * np.tanh(new + reset * new2) + update * state[0]]
    into, forget, cell, out = np.split(given + fed_back, 4, -1)
    remembered = sigmoid(forget) * state[1] + sigmoid(into) * np.tanh(cell)
    return [sigmoid(out) * np.tanh(remembered), remembered]


def loss(architecture, weights, inputs, targets, masks):
    states = [
        [np.zeros((BATCH, HIDDEN))] * (2 if architecture.cell == "lstm" else 1) for _ in range(architecture.layers)
    ]
    table = weights.get("embedding.weight", np.eye(VOCAB))
    total = 0
    for time in range(inputs.shape[1]):

        def mask(name, time=time):
            return masks[name][min(time, len(masks[name]) - 1)] if name in masks else 1.0

        row = table[inputs[:, time]] * mask("input")
        for layer in range(architecture.layers):
            if layer:
                row = row * mask(f"hidden{layer}")
            states[layer] = step(
                architecture, weights, layer, row, states[layer], masks.get(f"recurrent{layer}", np.float64(1))
            )
            row = states[layer][0]
        output = weights["embedding.weight" if architecture.tie_weights else "dense.weight"]
        logits = (row * mask("output")) @ output.T + weights["dense.bias"]
        total += (np.log(np.exp(logits).sum(-1)) - logits[np.arange(BATCH), targets[:, time]]).sum()
    return total / targets.size


def slopes(architecture, weights, *arguments):
    """The gradient by complex steps."""
    weights = {name: array.astype(complex) for name, array in weights.items()}
    result = {name: np.zeros(array.shape) for name, array in weights.items()}
    for name, array in weights.items():
        for place in np.ndindex(array.shape):
            array[place] += 1e-30j
            result[name][place] = loss(architecture, weights, *arguments).imag / 1e-30
            array[place] -= 1e-30j
    return result


def gradients(config, masks, inputs, targets):
    """The engine's, with the weights that they are at and the loss."""
    architecture = Architecture.of(config, VOCAB)
    names = list(dropout.masks(config, architecture, STEPS, 0))
    engine = GluonEngine(architecture, BATCH, "sgd", 0.0, 0.0, names, Device("cpu"))
    weights = architecture.initial("uniform", seed=1)
    rng = np.random.default_rng(2)  # biases of zero would hide a mistake in them
    weights = {name: array + rng.normal(0, 0.3, array.shape).astype(np.float32) for name, array in weights.items()}
    engine.load_parameters(weights)
    [uploaded] = engine.upload([(inputs, targets)], [masks])
    figures = engine.step(*uploaded, 1e-9, 1)
    return architecture, weights, engine._named(engine._gradients), *map(float, figures)


def ids():
    drawn = np.random.default_rng(5).integers(0, VOCAB, (BATCH, STEPS + 1)).astype(np.int32)
    return drawn[:, :-1], drawn[:, 1:]


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "relu"},
        {"activation": "tanh", "layers": 2},
        {"cell": "gru", "layers": 2},
        {"cell": "lstm", "layers": 2},
        {"cell": "lstm", "embedding_size": 3},
        {"cell": "gru", "embedding_size": HIDDEN, "tie_weights": True},
        {"cell": "lstm", "layers": 2, **DROPOUTS},
        {"cell": "gru", "layers": 2, "embedding_size": HIDDEN, "tie_weights": True, **DROPOUTS, "variational": False},
        {"activation": "tanh", "layers": 3, **DROPOUTS},
    ],
    ids=str,
)
def test_gradients_equal_those_of_an_independent_implementation(changes):
    config = TrainConfig(**PLAIN, **changes)
    inputs, targets = ids()
    masks = dropout.masks(config, Architecture.of(config, VOCAB), STEPS, 7)
    architecture, weights, found, found_loss, norm = gradients(config, masks, inputs, targets)
    expected = slopes(architecture, weights, inputs, targets, masks)
    assert found_loss == pytest.approx(loss(architecture, weights, inputs, targets, masks), rel=1e-5)
    assert norm == pytest.approx(np.sqrt(sum((array**2).sum() for array in expected.values())), rel=1e-5)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=2e-7, err_msg=name)


@pytest.mark.parametrize("changes", [{"activation": "tanh"}, {"cell": "gru"}, {"cell": "lstm", "layers": 2}], ids=str)
def test_randomised_truncation_gives_the_regular_gradient_on_average(changes):
    inputs, targets = ids()
    regular, *_ = gradients(TrainConfig(**PLAIN, **changes), {}, inputs, targets)[2:]
    keep = 0.6
    config = TrainConfig(**PLAIN, **changes, bptt_keep=keep)
    mean = {name: np.zeros(array.shape) for name, array in regular.items()}
    norms = []
    for kept in itertools.product([True, False], repeat=STEPS - 1):
        factors = np.array([1.0, *(1 / keep if one else 0.0 for one in kept)], np.float32)
        masks = {"gradient": np.broadcast_to(factors[:, None, None], (STEPS, BATCH, 1))}
        found, _, norm = gradients(config, masks, inputs, targets)[2:]
        probability = np.prod([keep if one else 1 - keep for one in kept])
        for name in mean:
            mean[name] += probability * found[name]
        norms.append(norm)
    for name, array in regular.items():
        np.testing.assert_allclose(mean[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    assert max(norms) > 1.1 * min(norms), "where the gradient ends has to make a difference"


def test_masks_drop_their_share_and_keep_the_mean():
    config = TrainConfig(cell="lstm", layers=2, hidden_size=40, batch_size=50, bptt_keep=0.8, **DROPOUTS)
    masks = dropout.masks(config, Architecture.of(config, 30), 35, 1)
    shapes = {
        "input": (1, 50, 30),
        "hidden1": (1, 50, 40),
        "output": (1, 50, 40),
        "recurrent0": (160, 40),
        "recurrent1": (160, 40),
        "gradient": (35, 50, 1),
    }
    assert {name: mask.shape for name, mask in masks.items()} == shapes
    shares = {"input": 0.3, "hidden1": 0.4, "output": 0.5, "recurrent0": 0.3, "gradient": 0.2}
    for name, share in shares.items():
        assert (masks[name] == 0).mean() == pytest.approx(share, abs=0.05)
        assert set(np.unique(masks[name])) == {np.float32(0), np.float32(1 / (1 - share))}


def test_masks_follow_from_the_seed_and_the_step():
    config = TrainConfig(output_dropout=0.5)
    architecture = Architecture.of(config, 30)

    def drawn(number, **changes):
        return dropout.masks(config.model_copy(update=changes), architecture, 35, number)["output"].tobytes()

    assert drawn(3) == drawn(3)
    assert len({drawn(3), drawn(4), drawn(3, seed=1)}) == 3


def test_what_is_not_variational_differs_from_step_to_step():
    config = TrainConfig(output_dropout=0.5, variational=False)
    mask = dropout.masks(config, Architecture.of(config, 30), 35, 1)["output"]
    assert mask.shape == (35, 32, 256)
    assert (mask[0] != mask[1]).any()


def test_dropout_is_active_while_training_and_absent_while_measuring():
    inputs, targets = ids()
    config = TrainConfig(**PLAIN, cell="lstm", layers=2)
    architecture, weights, _, plain, _ = gradients(config, {}, inputs, targets)
    for field in DROPOUTS:
        dropping = config.model_copy(update={field: 0.5})
        masks = dropout.masks(dropping, architecture, STEPS, 3)
        assert abs(gradients(dropping, masks, inputs, targets)[3] - plain) > 1e-4, field
        engine = GluonEngine(architecture, BATCH, "sgd", 0.0, 0.0, list(masks), Device("cpu"))
        engine.load_parameters(weights)
        assert engine.loss([(inputs, targets)]) == pytest.approx(plain, rel=1e-6), field
