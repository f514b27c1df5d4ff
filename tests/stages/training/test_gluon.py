"""The MXNet engine computes what the chapter's plain, eager loop computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.lm.parameters import Architecture
from stages.training import gluon
from stages.training.device import Device
from stages.training.gluon import GluonEngine, RNNModel

ROOT = Path(__file__).parents[3]
VOCAB, HIDDEN, BATCH, STEPS = 11, 16, 4, 7
CELLS = [("rnn", 1), ("rnn", 2), ("gru", 1), ("gru", 2), ("lstm", 1), ("lstm", 2)]


def minibatches(count, seed=0):
    ids = np.random.default_rng(seed).integers(0, VOCAB, (BATCH, count * STEPS + 1)).astype(np.int32)
    return [(ids[:, i : i + STEPS], ids[:, i + 1 : i + STEPS + 1]) for i in range(0, count * STEPS, STEPS)]


def weights(cell, layers, scale=1.0):
    return {
        name: array * np.float32(scale)
        for name, array in Architecture(cell, "relu", HIDDEN, layers, VOCAB).initial("normal", seed=3).items()
    }


def engine(cell, layers, clip_norm=1.0, scale=1.0, optimizer="sgd", weight_decay=0.0):
    architecture = Architecture(cell, "relu", HIDDEN, layers, VOCAB)
    made = GluonEngine(architecture, BATCH, optimizer, weight_decay, clip_norm, (), Device("cpu"))
    made.load_parameters(weights(cell, layers, scale))
    return made


def book_loop(start, batches, learning_rate, clip_norm):
    """The chapter's loop on the engine's own model: eager, op by op, waiting in every step."""
    mnp = gluon.mnp
    model = start._model
    model.hybridize(active=False)
    trained = list(model.collect_params().values())
    cross_entropy = gluon.gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.gluon.Trainer(model.collect_params(), "sgd", {"learning_rate": learning_rate})
    state = model.begin_state(BATCH, gluon.mx.cpu())
    figures = []
    for inputs, targets in batches:
        state = [array.detach() for array in state]
        with gluon.autograd.record():
            logits, state = model(mnp.array(inputs, dtype="int32"), state)
            loss = cross_entropy(logits, mnp.array(targets, dtype="int32").T.reshape(-1)).mean()
        loss.backward()
        norm = float(mnp.sqrt(sum((parameter.grad() ** 2).sum() for parameter in trained)))
        if clip_norm and norm > clip_norm:
            for parameter in trained:
                parameter.grad()[:] *= clip_norm / norm
        trainer.step(1)
        figures.append((float(loss), norm))
    return np.array(figures), start.parameters(), [array.asnumpy() for array in state]


def train(trained, batches, learning_rate, first=1):
    uploaded = trained.upload(batches, [{}] * len(batches))
    steps = [trained.step(*arguments, learning_rate, number) for number, arguments in enumerate(uploaded, first)]
    return np.array([tuple(map(float, step)) for step in steps])


def test_shapes_are_the_chapters():
    gluon.npx.set_np()
    model = RNNModel(Architecture("rnn", "relu", 256, 1, 28))
    model.initialize()
    state = model.begin_state(32, gluon.mx.cpu())
    ids = gluon.mnp.zeros((32, 35), dtype="int32")
    outputs, new_state = model.recur(model.embed(ids), state, {})
    logits, _ = model(ids, state)
    assert model.embed(ids).shape == (35, 32, 28)
    assert [array.shape for array in state] == [array.shape for array in new_state] == [(1, 32, 256)]
    assert outputs.shape == (35, 32, 256)
    assert logits.shape == (35 * 32, 28)


@pytest.mark.parametrize(("cell", "layers"), CELLS)
def test_step_agrees_with_the_books_loop(cell, layers):
    batches = minibatches(12)
    free, *_ = book_loop(engine(cell, layers), batches, 1.0, 0)
    clip_norm = float(np.median(free[:, 1]))
    expected, expected_weights, expected_state = book_loop(engine(cell, layers), batches, 1.0, clip_norm)
    assert 0 < (expected[:, 1] > clip_norm).sum() < 12, "the test has to clip some steps and not others"
    tuned = engine(cell, layers, clip_norm=clip_norm)
    figures = train(tuned, batches, 1.0)
    np.testing.assert_allclose(figures, expected, rtol=1e-5)
    for name, array in tuned.parameters().items():
        np.testing.assert_allclose(array, expected_weights[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for array, wanted in zip(tuned.state().values(), expected_state, strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-6)


def test_clip_norm_of_zero_never_clips():
    batches = minibatches(6)
    expected, expected_weights, _ = book_loop(engine("rnn", 1, scale=20), batches, 0.01, 0)
    free, clipped = engine("rnn", 1, clip_norm=0, scale=20), engine("rnn", 1, clip_norm=0.1, scale=20)
    figures = train(free, batches, 0.01)
    train(clipped, batches, 0.01)
    np.testing.assert_allclose(figures, expected, rtol=1e-5)
    name = "rnn.weight_hh_l0"
    np.testing.assert_allclose(free.parameters()[name], expected_weights[name], rtol=1e-4, atol=1e-6)
    assert not np.allclose(clipped.parameters()[name], expected_weights[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("cell", "layers"), CELLS)
def test_parameters_come_back_as_they_went_in(cell, layers):
    given = weights(cell, layers)
    returned = engine(cell, layers).parameters()
    assert list(returned) == list(given)
    for name, array in given.items():
        assert array.tobytes() == returned[name].tobytes()


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_state_parameters_and_moments_are_all_there_is(cell, optimizer):
    batches = minibatches(6)
    whole = engine(cell, 2, optimizer=optimizer, weight_decay=0.01)
    train(whole, batches, 0.1)
    first = engine(cell, 2, optimizer=optimizer, weight_decay=0.01)
    train(first, batches[:3], 0.1)
    second = engine(cell, 2, optimizer=optimizer, weight_decay=0.01)
    second.load_parameters(first.parameters())
    second.load_state(first.state())
    second.load_moments(first.moments())
    train(second, batches[3:], 0.1, first=4)
    for name, array in whole.parameters().items():
        assert array.tobytes() == second.parameters()[name].tobytes(), name


def plain_optimizer(optimizer, start, gradients, rate, decay, clip_norm):
    """The same in float64, parameter by parameter, as their papers have them."""
    values = {name: array.astype(np.float64) for name, array in start.items()}
    first, second = ({name: np.zeros(array.shape) for name, array in start.items()} for _ in range(2))
    for number, gradient in enumerate(gradients, 1):
        norm = np.sqrt(sum((array**2).sum() for array in gradient.values()))
        for name, array in gradient.items():
            pull = decay * values[name] if "weight" in name else 0.0
            slope = array * min(clip_norm / norm, 1)
            if optimizer != "adamw":
                slope = slope + pull
            if optimizer == "sgd":
                values[name] = values[name] - rate * slope
            elif optimizer == "momentum":
                first[name] = 0.9 * first[name] - rate * slope
                values[name] = values[name] + first[name]
            else:
                first[name] = 0.9 * first[name] + 0.1 * slope
                second[name] = 0.999 * second[name] + 0.001 * slope**2
                mean, variance = first[name] / (1 - 0.9**number), second[name] / (1 - 0.999**number)
                step = mean / (np.sqrt(variance) + 1e-8 / np.sqrt(1 - 0.999**number))
                values[name] = values[name] - rate * (step + (pull if optimizer == "adamw" else 0.0))
    return values


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_optimizers_do_what_their_papers_say(optimizer, decay):
    made = engine("gru", 2, optimizer=optimizer, weight_decay=decay, clip_norm=0.05, scale=20)
    start, gradients = made.parameters(), []
    update = "_adam" if optimizer.startswith("adam") else "_sgd"
    original = getattr(made, update)

    def record(*arguments):
        gradients.append({name: array.astype(np.float64) for name, array in made._named(made._gradients).items()})
        original(*arguments)

    setattr(made, update, record)
    norms = train(made, minibatches(5), 0.01)[:, 1]
    expected = plain_optimizer(optimizer, start, gradients, 0.01, decay, 0.05)
    assert max(norms) > 0.05, "the test has to clip"
    for name, array in made.parameters().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_measuring_learns_nothing_and_leaves_the_state_alone():
    batches = minibatches(3)
    trained = engine("lstm", 1, scale=30)
    train(trained, batches[:1], 0.5)
    before = trained.parameters(), trained.state()
    joined = tuple(np.concatenate(part, axis=1) for part in zip(*batches, strict=True))
    tail = joined[0][:, :-3], joined[1][:, :-3]
    assert trained.loss(batches) == pytest.approx(trained.loss([joined]), rel=1e-6)
    assert trained.loss([*batches[:2], tuple(part[:, :4] for part in batches[2])]) == pytest.approx(
        trained.loss([tail]), rel=1e-6
    )
    for old, new in zip(before, (trained.parameters(), trained.state()), strict=True):
        assert all(old[name].tobytes() == new[name].tobytes() for name in old)


def test_the_average_moves_by_its_share_and_is_what_is_measured():
    batches = minibatches(2)
    averaged = engine("gru", 1, scale=30)
    begun = averaged.averages()
    train(averaged, batches, 0.5)
    averaged.average(0.25)
    for name, array in averaged.averages().items():
        np.testing.assert_allclose(array, 0.75 * begun[name] + 0.25 * averaged.parameters()[name], rtol=1e-6, atol=1e-7)
    other = engine("gru", 1)
    other.load_parameters(averaged.averages())
    assert averaged.loss(batches) == other.loss(batches)


def test_importing_mxnet_changes_neither_numpy_nor_logging():
    code = (
        "import logging, numpy; from stages.training import gluon; "
        "print([name for name in gluon._NUMPY_1_NAMES if name in vars(numpy)], logging.root.handlers)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == "[] []\n"
