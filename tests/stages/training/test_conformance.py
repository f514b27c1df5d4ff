"""What every engine has to do: the right gradient, the optimizers' formulas, and the same bits however it is stopped.

Gradients are held against an independent implementation that knows no backpropagation: it computes the loss in complex
numbers, and a gradient's entry is the imaginary part after an imaginary step of 1e-30 in that weight (Squire and Trapp,
"Using Complex Variables to Estimate Derivatives of Real Functions", SIAM Review 1998), exact to the last digits because
nothing is subtracted.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from data.errors import Interrupted
from data.progress import Progress
from data.tables.tokens import END_ID
from stages.config import TrainConfig
from stages.lm.network import Network
from stages.lm.parameters import Architecture, Parameters
from stages.training import bptt, checkpoint, dropout
from stages.training.dropout import Masks
from stages.training.engine import MOMENTS, Arrays, Engine, EngineState, Figures, Recipe, Step, recurrent_names
from stages.training.minibatches import Minibatch, whole

if TYPE_CHECKING:
    from tests.stages.conftest import Build, Runs, Tokenized

Floats = npt.NDArray[np.float64]
Child = tuple[Path, "subprocess.Popen[str]"]
Optimizer = Literal["sgd", "momentum", "adam", "adamw"]

ROOT = Path(__file__).parents[3]
VOCAB, HIDDEN, BATCH, STEPS = 6, 5, 3, 4
PLAIN: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "batch_size": BATCH,
    "num_steps": STEPS,
    "clip_norm": 0,
    "initializer": "uniform",
}
DROPOUTS = {"input_dropout": 0.3, "hidden_dropout": 0.4, "output_dropout": 0.5, "weight_dropout": 0.3}
MODELS: list[dict[str, Any]] = [
    {"activation": "relu"},
    {"activation": "tanh", "layers": 2},
    {"cell": "gru", "layers": 2},
    {"cell": "lstm", "layers": 2},
    {"cell": "lstm", "embedding_size": 3},
    {"cell": "gru", "embedding_size": HIDDEN, "tie_weights": True},
    {"cell": "lstm", "layers": 2, **DROPOUTS},
    {"cell": "gru", "layers": 2, "embedding_size": HIDDEN, "tie_weights": True, **DROPOUTS, "variational": False},
    {"activation": "tanh", "layers": 3, **DROPOUTS},
]
every_model = pytest.mark.parametrize(
    ("model", "ends"),
    # `minibatches` has all ids, and so that of the end of a document.
    [*((model, False) for model in range(len(MODELS))), *((model, True) for model in (0, 3, 5, 7, 8))],
    ids=lambda value: ("", "ends")[value] if isinstance(value, bool) else str(MODELS[value]),
)
every_cell = pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
every_optimizer = pytest.mark.parametrize("optimizer", MOMENTS)


def weights(architecture: Architecture) -> Parameters:
    """Some for each parameter; biases of zero would hide a mistake in them."""
    rng = np.random.default_rng(2)
    first = architecture.initial("uniform", seed=1)
    return {name: array + rng.normal(0, 0.3, array.shape).astype(np.float32) for name, array in first.items()}


def minibatches(count: int, steps: int = STEPS, seed: int = 5) -> list[Minibatch]:
    """Neighbouring ones."""
    ids = np.random.default_rng(seed).integers(0, VOCAB, (BATCH, count * steps + 1)).astype(np.int32)
    return [(ids[:, i : i + steps], ids[:, i + 1 : i + steps + 1]) for i in range(0, count * steps, steps)]


def recipe(
    cell: Any = "lstm", optimizer: Optimizer = "sgd", layers: int = 2, *, ends: bool = False, **changes: Any
) -> Recipe:
    architecture = Architecture(cell, "tanh", HIDDEN, layers, VOCAB, ends=ends)
    return Recipe(architecture=architecture, batch_size=BATCH, optimizer=optimizer, **changes)


def begun(build: Build, made: Recipe) -> Engine:
    """An engine with the weights of before training."""
    engine = build(made)
    engine.restore(EngineState.initial(made, weights(made.architecture)))
    return engine


def plan(batches: Sequence[Minibatch], rate: float, first: int = 1, **changes: Any) -> list[Step]:
    return [
        Step(inputs=inputs, targets=targets, learning_rate=rate, number=number, **changes)
        for number, (inputs, targets) in enumerate(batches, first)
    ]


def arrays(state: EngineState) -> dict[str, Arrays]:
    return {kind: getattr(state, kind) for kind in ("parameters", "averages", "moments", "recurrent")}


def bits(state: EngineState) -> dict[str, dict[str, bytes]]:
    return {kind: {name: array.tobytes() for name, array in named.items()} for kind, named in arrays(state).items()}


# --- gradients


def sigmoid(values: Any) -> Any:
    return 1 / (1 + np.exp(-values))


def cell_step(
    architecture: Architecture, weights: Mapping[str, Any], layer: int, row: Any, state: Any, mask: Any
) -> Any:
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


def mean_loss(architecture: Architecture, weights: Mapping[str, Any], batch: Minibatch, masks: Masks) -> Any:
    """By the formulas, from a zero state; so is what ends a document read."""
    inputs, targets = batch
    begins = (inputs == END_ID) & architecture.ends
    states = [
        [np.zeros((BATCH, HIDDEN))] * (2 if architecture.cell == "lstm" else 1) for _ in range(architecture.layers)
    ]
    table = weights.get("embedding.weight", np.eye(VOCAB))
    total: Any = 0
    for moment in range(inputs.shape[1]):

        def mask(name: str, moment: int = moment) -> Any:
            return masks[name][min(moment, len(masks[name]) - 1)] if name in masks else 1.0

        row = table[inputs[:, moment]] * mask("input")
        for layer in range(architecture.layers):
            if layer:
                row = row * mask(f"hidden{layer}")
            recurrent = masks.get(f"recurrent{layer}", np.ones(1, np.float32))
            states[layer] = [np.where(begins[:, moment, None], 0, array) for array in states[layer]]
            states[layer] = cell_step(architecture, weights, layer, row, states[layer], recurrent)
            row = states[layer][0]
        output = weights["embedding.weight" if architecture.tie_weights else "dense.weight"]
        logits = (row * mask("output")) @ output.T + weights["dense.bias"]
        total += (np.log(np.exp(logits).sum(-1)) - logits[np.arange(BATCH), targets[:, moment]]).sum()
    return total / targets.size


def slopes(architecture: Architecture, weights: Parameters, batch: Minibatch, masks: Masks) -> dict[str, Floats]:
    """The gradient by complex steps."""
    moved = {name: array.astype(complex) for name, array in weights.items()}
    result = {name: np.zeros(array.shape) for name, array in moved.items()}
    for name, array in moved.items():
        for place in np.ndindex(array.shape):
            array[place] += 1e-30j
            result[name][place] = mean_loss(architecture, moved, batch, masks).imag / 1e-30
            array[place] -= 1e-30j
    return result


@cache
def by_formulas(model: int, ends: bool) -> tuple[Minibatch, Masks, float, dict[str, Floats]]:
    """One of the models above: a minibatch, its masks, the loss and the gradient, counted once for all who ask."""
    config = TrainConfig(**PLAIN, **MODELS[model])
    architecture = Architecture.of(config, VOCAB, ends=ends)
    [batch] = minibatches(1)
    masks = dropout.masks(config, architecture, STEPS, 7)
    given = weights(architecture)
    exact = {name: array.astype(np.float64) for name, array in given.items()}
    return batch, masks, mean_loss(architecture, exact, batch, masks), slopes(architecture, given, batch, masks)


class Gradients:
    """An engine's gradient at any state: with momentum, at a rate of 1, the velocity after one step from zero is -g."""

    def __init__(self, build: Build, made: Recipe) -> None:
        self.recipe = replace(made, optimizer="momentum", clip_norm=0.0, weight_decay=0.0)
        self.engine = build(self.recipe)

    def at(
        self, parameters: Arrays, batch: Minibatch, masks: Masks | None = None, recurrent: Arrays | None = None
    ) -> tuple[Arrays, Figures]:
        start = EngineState.initial(self.recipe, parameters)
        self.engine.restore(replace(start, recurrent=recurrent or start.recurrent))
        [figures] = self.engine.run(plan([batch], 1.0, masks=masks or {}))
        moments = self.engine.state().moments
        return {name: -moments[f"momentum/{name}"] for name in parameters}, figures


@every_model
def test_gradients_equal_those_of_an_independent_implementation(build: Build, model: int, ends: bool) -> None:
    made = Recipe.of(TrainConfig(**PLAIN, **MODELS[model]), VOCAB, ends=ends)
    batch, masks, expected_loss, expected = by_formulas(model, ends)
    found, (loss, norm) = Gradients(build, made).at(weights(made.architecture), batch, masks)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert norm == pytest.approx(np.sqrt(sum((array**2).sum() for array in expected.values())), rel=1e-5)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=2e-7, err_msg=name)


@pytest.mark.parametrize("ends", [False, True], ids=["", "ends"])
@pytest.mark.parametrize(
    "changes", [*MODELS, {"cell": "gru", "bptt_keep": 0.6}, {"cell": "lstm", "bptt_keep": 0.6}], ids=str
)
def test_engines_agree(installed: list[Build], changes: dict[str, Any], ends: bool) -> None:
    config = TrainConfig(**PLAIN | {"hidden_size": 48, "batch_size": 8, "num_steps": 35} | fitting(changes, 48))
    made = Recipe.of(config, 28, ends=ends)
    ids = np.random.default_rng(8).integers(0, 28, (8, 36)).astype(np.int32)
    masks = dropout.masks(config, made.architecture, 35, 7)
    given = made.architecture.initial("uniform", seed=1)
    found = [Gradients(build, made).at(given, (ids[:, :-1], ids[:, 1:]), masks) for build in installed]
    for (one, figures), (other, others) in itertools.combinations(found, 2):
        assert figures == pytest.approx(others, rel=1e-5)
        for name, array in one.items():
            largest = np.abs(array).max()
            np.testing.assert_allclose(array, other[name], rtol=1e-4, atol=1e-5 * largest, err_msg=name)


def fitting(changes: dict[str, Any], hidden: int) -> dict[str, Any]:
    """For that many hidden units: tied weights have embeddings as wide."""
    return {**changes, "embedding_size": hidden} if changes.get("tie_weights") else changes


@every_model
def test_the_derivation_holds_to_the_last_digits(model: int, ends: bool) -> None:
    """The engine bptt computes in the type of its arrays: here in float64."""
    architecture = Architecture.of(TrainConfig(**PLAIN, **MODELS[model]), VOCAB, ends=ends)
    batch, masks, expected_loss, expected = by_formulas(model, ends)
    given, gradient = bptt.Vector(architecture, np.float64), bptt.Vector(architecture, np.float64)
    given.fill(weights(architecture))
    unrolled = bptt.Unrolled(architecture, STEPS, BATCH, tuple(masks), np.float64)
    unrolled.begin([np.zeros((architecture.layers, HIDDEN, BATCH)) for _ in recurrent_names(architecture)])
    unrolled.forward(given, batch[0], masks)
    assert unrolled.nats(batch[1]).mean() == pytest.approx(expected_loss, rel=1e-14)
    unrolled.backward(given, gradient, masks)
    for name, array in expected.items():
        np.testing.assert_allclose(gradient.named[name], array, rtol=1e-10, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("changes", [{"activation": "tanh"}, {"cell": "gru"}, {"cell": "lstm", "layers": 2}], ids=str)
def test_randomised_truncation_gives_the_regular_gradient_on_average(build: Build, changes: dict[str, Any]) -> None:
    [batch], keep = minibatches(1), 0.6
    made = Recipe.of(TrainConfig(**PLAIN, **changes), VOCAB)
    given = weights(made.architecture)
    regular, _ = Gradients(build, made).at(given, batch)
    mean = {name: np.zeros(array.shape) for name, array in regular.items()}
    norms = []
    truncated = Gradients(build, Recipe.of(TrainConfig(**PLAIN, **changes, bptt_keep=keep), VOCAB))
    for kept in itertools.product([True, False], repeat=STEPS - 1):
        factors = np.array([1.0, *(1 / keep if one else 0.0 for one in kept)], np.float32)
        masks = {"gradient": np.broadcast_to(factors[:, None, None], (STEPS, BATCH, 1))}
        found, figures = truncated.at(given, batch, masks)
        probability = np.prod([keep if one else 1 - keep for one in kept])
        for name in mean:
            mean[name] += probability * found[name]
        norms.append(figures.grad_norm)
    for name, array in regular.items():
        np.testing.assert_allclose(mean[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    assert max(norms) > 1.1 * min(norms), "where the gradient ends has to make a difference"


def test_dropout_is_active_while_training_and_absent_while_measuring(build: Build) -> None:
    [batch] = minibatches(1)
    plain = TrainConfig(**PLAIN, cell="lstm", layers=2)
    made = Recipe.of(plain, VOCAB)
    given = weights(made.architecture)
    _, (loss, _) = Gradients(build, made).at(given, batch)
    for field in DROPOUTS:
        config = plain.model_copy(update={field: 0.5})
        dropping = Recipe.of(config, VOCAB)
        engine = begun(build, dropping)
        assert engine.loss([batch]) == pytest.approx(loss, rel=1e-6), field
        masks = dropout.masks(config, dropping.architecture, STEPS, 3)
        [figures] = engine.run(plan([batch], 0.1, masks=masks))
        assert abs(figures.loss - loss) > 1e-4, field


@pytest.mark.parametrize("changes", [{}, {"bptt_keep": 0.6}], ids=str)
@every_cell
def test_documents_teach_what_each_of_them_teaches_alone(build: Build, cell: Any, changes: dict[str, Any]) -> None:
    config = TrainConfig(**PLAIN | {"cell": cell, "num_steps": 7, "layers": 2, **changes})
    made = Recipe.of(config, VOCAB, ends=True)
    given, masks = weights(made.architecture), dropout.masks(config, made.architecture, 7, 7)
    [(inputs, targets)] = minibatches(1, 7)
    documents: list[tuple[int, slice]] = []
    for row, ids in enumerate(inputs):
        ids[ids == END_ID] = 0
        ids[[[0, 2, 3], [5], []][row]] = END_ID  # which stands before the document that it lets begin
        bounds = [0, *(np.flatnonzero(ids[1:] == END_ID) + 1).tolist(), 7]
        documents += [(row, slice(*bounds)) for bounds in itertools.pairwise(bounds)]
    assert len(documents) == 6
    recurrent = {name: np.full((2, BATCH, HIDDEN), 0.3, np.float32) for name in recurrent_names(made.architecture)}
    found, (loss, _) = Gradients(build, made).at(given, (inputs, targets), masks, recurrent)
    alone, expected_loss = Gradients(build, replace(made, batch_size=1)), 0.0
    summed = {name: np.zeros_like(array) for name, array in given.items()}
    for row, these in documents:
        state = {name: array[:, row : row + 1] * (inputs[row, these][0] != END_ID) for name, array in recurrent.items()}
        state = state if not these.start else {name: np.zeros_like(array) for name, array in state.items()}
        batch = inputs[row : row + 1, these], targets[row : row + 1, these]
        own = {name: mask[these, row : row + 1] for name, mask in masks.items()}
        gradient, figures = alone.at(given, batch, own, state)
        share = batch[0].size / inputs.size
        expected_loss += share * figures.loss
        for name, array in gradient.items():
            summed[name] += np.float32(share) * array
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, array in found.items():
        np.testing.assert_allclose(array, summed[name], rtol=1e-4, atol=1e-6, err_msg=name)


@every_cell
def test_of_what_lies_before_a_document_nothing_is_left(build: Build, cell: str) -> None:
    made = recipe(cell, ends=True)
    [batch], found = minibatches(1), set()
    batch[0][:, 0] = END_ID
    for before in (0.0, 5.0):
        engine, start = build(made), EngineState.initial(made, weights(made.architecture))
        recurrent = {name: np.full_like(array, before) for name, array in start.recurrent.items()}
        engine.restore(replace(start, recurrent=recurrent))
        figures = engine.run(plan([batch], 0.1))
        lone = engine.loss([batch])
        other = (np.full((BATCH, 3), 4, np.int32), np.full((BATCH, 3), -1, np.int32))  # read, and not counted
        assert engine.loss([other, batch]) == pytest.approx(lone, rel=1e-6)
        found.add((*figures, json.dumps([array.tolist() for array in engine.state().recurrent.values()])))
    assert len(found) == 1


# --- steps


def by_the_papers(
    optimizer: Optimizer, start: Parameters, gradients: Sequence[Arrays], rate: float, decay: float, clip_norm: float
) -> dict[str, Floats]:
    """The weights after these gradients, in float64, parameter by parameter."""
    values = {name: array.astype(np.float64) for name, array in start.items()}
    first, second = ({name: np.zeros(array.shape) for name, array in start.items()} for _ in range(2))
    for number, gradient in enumerate(gradients, 1):
        exact = {name: array.astype(np.float64) for name, array in gradient.items()}
        norm = np.sqrt(sum((array**2).sum() for array in exact.values()))
        for name, array in exact.items():
            pull = decay * values[name] if "weight" in name else 0.0
            slope = array * (min(clip_norm / norm, 1) if clip_norm else 1)
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
@every_optimizer
def test_optimizers_do_what_their_papers_say(build: Build, optimizer: Optimizer, decay: float) -> None:
    clip_norm = 0.45
    made = recipe("gru", optimizer, weight_decay=decay, clip_norm=clip_norm)
    engine, gradients = begun(build, made), Gradients(build, made)
    start, slopes, norms = engine.state().parameters, [], []
    for number, batch in enumerate(minibatches(5), 1):
        before = engine.state()
        slopes.append(gradients.at(before.parameters, batch, recurrent=before.recurrent)[0])
        [figures] = engine.run(plan([batch], 0.01, number))
        norms.append(figures.grad_norm)
    assert min(norms) < clip_norm < max(norms), "the test has to clip some steps and not others"
    expected = by_the_papers(optimizer, start, slopes, 0.01, decay, clip_norm)
    for name, array in engine.state().parameters.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_clip_norm_of_zero_never_clips(build: Build) -> None:
    [batch] = minibatches(1)
    made = recipe("rnn")
    given = {name: 10 * array for name, array in weights(made.architecture).items()}
    gradient, figures = Gradients(build, made).at(given, batch)
    assert figures.grad_norm > 1
    free, clipped = build(made), build(replace(made, clip_norm=1.0))
    for engine, scale in ((free, 1.0), (clipped, 1 / figures.grad_norm)):
        engine.restore(EngineState.initial(made, given))
        assert engine.run(plan([batch], 0.1)) == [pytest.approx(figures)]
        for name, array in engine.state().parameters.items():
            np.testing.assert_allclose(array, given[name] - 0.1 * scale * gradient[name], rtol=1e-5, atol=1e-6)


@every_cell
def test_the_state_is_carried_until_it_is_set_to_zero(build: Build, cell: str) -> None:
    batches = minibatches(3)
    engine = begun(build, recipe(cell, weight_decay=0.0))
    assert all(not array.any() for array in engine.state().recurrent.values())
    for reset in (False, True):
        engine.restore(EngineState.initial(recipe(cell), weights(recipe(cell).architecture)))
        found = [figures.loss for figures in engine.run(plan(batches, 1e-9, reset_state=reset))]
        whole = [engine.loss(batches[:count]) * count for count in (1, 2, 3)]
        expected = [engine.loss([batch]) for batch in batches] if reset else np.diff([0.0, *whole])
        np.testing.assert_allclose(found, expected, rtol=1e-5)


# --- what is kept


@every_cell
def test_initial_weights_come_back_as_they_went_in(build: Build, cell: str) -> None:
    made = recipe(cell, "adam")
    given = weights(made.architecture)
    state = begun(build, made).state()
    names = ("hidden", "cell") if cell == "lstm" else ("hidden",)
    assert list(state.parameters) == list(state.averages) == list(made.architecture.shapes())
    assert bits(state) == bits(EngineState.initial(made, given))
    assert {name: array.shape for name, array in state.recurrent.items()} == dict.fromkeys(names, (2, BATCH, HIDDEN))
    assert all(array.dtype == np.float32 for named in arrays(state).values() for array in named.values())


def test_a_state_is_a_copy(build: Build) -> None:
    engine = begun(build, recipe(optimizer="momentum"))
    taken = engine.state()
    before = bits(taken)
    engine.run(plan(minibatches(2), 0.5))
    assert bits(taken) == before
    engine.restore(taken)
    for named in arrays(taken).values():
        for array in named.values():
            array.fill(np.nan)
    assert bits(engine.state()) == before


@pytest.mark.parametrize(("optimizer", "ends"), [*((optimizer, False) for optimizer in MOMENTS), ("momentum", True)])
@every_cell
def test_stopped_after_any_step_it_goes_on_bit_for_bit(
    build: Build, cell: str, optimizer: Optimizer, ends: bool
) -> None:
    made = recipe(cell, optimizer, ends=ends, weight_decay=0.01, clip_norm=0.5)
    steps = plan([*minibatches(3), *minibatches(1, steps=2)], 0.1, averaging=0.3)
    whole, second = begun(build, made), build(made)
    figures = whole.run(steps)
    ended = bits(whole.state())
    for stop in range(1, len(steps)):
        first = begun(build, made) if stop == 1 else whole
        first.restore(EngineState.initial(made, weights(made.architecture)))
        seen = [figure for step in steps[:stop] for figure in first.run([step])]
        second.restore(first.state())
        assert seen + second.run(steps[stop:]) == figures, stop
        assert bits(second.state()) == ended, stop


@pytest.mark.parametrize("changes", MODELS[-3:], ids=str)
def test_the_same_steps_give_the_same_bits(build: Build, changes: dict[str, Any]) -> None:
    config = TrainConfig(**PLAIN, **changes, bptt_keep=0.9, optimizer="adam")
    made = Recipe.of(config, VOCAB)
    steps = [
        replace(step, masks=dropout.masks(config, made.architecture, STEPS, step.number))
        for step in plan(minibatches(3), 0.1, averaging=0.5)
    ]
    one, other = begun(build, made), begun(build, made)
    assert one.run(steps) == other.run(steps)
    assert bits(one.state()) == bits(other.state())


# --- averages, and what is measured on them


def test_the_average_moves_as_each_step_says_and_is_what_is_measured(build: Build) -> None:
    batches = minibatches(3)
    made = recipe("gru")
    engine = begun(build, made)
    begin = engine.state().averages
    engine.run(plan(batches[:1], 0.5, averaging=0.0))
    assert bits(replace(engine.state(), parameters={})) == bits(replace(engine.state(), parameters={}, averages=begin))
    engine.run(plan(batches[1:2], 0.5, 2, averaging=0.25))
    state = engine.state()
    for name, array in state.averages.items():
        np.testing.assert_allclose(array, 0.75 * begin[name] + 0.25 * state.parameters[name], rtol=1e-6, atol=1e-7)
    other = build(made)
    other.restore(EngineState.initial(made, state.averages))
    assert engine.loss(batches) == other.loss(batches)
    engine.run(plan(batches[2:], 0.5, 3))
    assert bits(replace(engine.state(), averages={})) == bits(
        replace(engine.state(), averages={}, parameters=engine.state().averages)
    )


def test_measuring_learns_nothing_and_leaves_the_state_alone(build: Build) -> None:
    batches = minibatches(3)
    engine = begun(build, recipe("lstm", "momentum"))
    engine.run(plan(batches[:1], 0.5))
    before = bits(engine.state())
    inputs, targets = (np.concatenate(side, axis=1) for side in zip(*batches, strict=True))
    assert engine.loss(batches) == pytest.approx(engine.loss([(inputs, targets)]), rel=1e-6)
    shorter = (batches[2][0][:, :-2], batches[2][1][:, :-2])
    assert engine.loss([*batches[:2], shorter]) == pytest.approx(
        engine.loss([(inputs[:, :-2], targets[:, :-2])]), rel=1e-6
    )
    assert bits(engine.state()) == before


@every_cell
def test_the_loss_is_that_of_the_formulas_for_any_number_of_rows(build: Build, cell: str) -> None:
    made = recipe(cell)
    engine = begun(build, made)
    [batch] = minibatches(1)
    exact = {name: array.astype(np.float64) for name, array in weights(made.architecture).items()}
    expected = mean_loss(made.architecture, exact, batch, {})
    assert engine.loss([batch]) == pytest.approx(expected, rel=1e-5)
    rows = [engine.loss([(batch[0][row : row + 1], batch[1][row : row + 1])]) for row in range(BATCH)]
    assert np.mean(rows) == pytest.approx(expected, rel=1e-5)
    doubled = tuple(np.concatenate([side, side]) for side in batch)
    assert engine.loss([(doubled[0], doubled[1])]) == pytest.approx(expected, rel=1e-5)


@every_cell
def test_a_split_has_one_loss_whatever_batches_were_trained_on_and_it_is_that_of_one_pass(
    build: Build, cell: str
) -> None:
    ids = np.random.default_rng(7).integers(0, VOCAB, 2500).astype(np.uint8)
    made = recipe(cell)
    given = weights(made.architecture)
    measured = set()
    for batch_size in (1, 8, 32, 64):
        engine = build(replace(made, batch_size=batch_size))
        engine.restore(EngineState.initial(replace(made, batch_size=batch_size), given))
        measured.add(engine.loss(whole(ids)))
    (loss,) = measured
    assert loss == pytest.approx(Network(made.architecture, given).loss(ids), abs=1e-5)


def test_negative_targets_are_not_counted(build: Build) -> None:
    engine = begun(build, recipe("lstm"))
    batches = minibatches(3)
    per_row = [[(inputs[row : row + 1], targets[row : row + 1]) for inputs, targets in batches] for row in range(BATCH)]
    alone = [engine.loss(row) for row in per_row]
    hidden = [(inputs, np.where(np.arange(BATCH)[:, None] == 1, -1, targets)) for inputs, targets in batches]
    assert engine.loss(hidden) == pytest.approx((alone[0] + alone[2]) / 2, rel=1e-6)
    # A minibatch of which nothing is counted is read all the same: the state goes on.
    whole, first = engine.loss(batches) * 3, engine.loss(batches[:1])
    unseen = [(batches[0][0], np.full_like(batches[0][1], -1)), *batches[1:]]
    assert engine.loss(unseen) == pytest.approx((whole - first) / 2, rel=1e-6)
    # The ends of rows of different lengths: their padding costs nothing.
    inputs, targets = batches[0]
    padded = (inputs, np.where(np.arange(STEPS) < np.array([[4], [2], [1]]), targets, -7))
    rows = [(inputs[row : row + 1, :steps], targets[row : row + 1, :steps]) for row, steps in enumerate((4, 2, 1))]
    expected = sum(engine.loss([row]) * row[1].size for row in rows) / 7
    assert engine.loss([padded]) == pytest.approx(expected, rel=1e-6)


# --- whole trainings


EVERYTHING = {
    "layers": 2,
    "embedding_size": 12,
    "tie_weights": True,
    "input_dropout": 0.1,
    "hidden_dropout": 0.1,
    "output_dropout": 0.2,
    "weight_dropout": 0.1,
    "weight_decay": 0.001,
    "initializer": "uniform",
    "warmup_epochs": 1.5,
    "patience": 3,
}


@pytest.fixture
def trained(run: Runs, build: Build) -> Runs:
    """Trains on this engine."""
    return run.on(build)


def test_seed_and_partition_decide(run: Runs) -> None:
    """No engine knows of them: it is given weights, minibatches and masks."""
    first, again, other, random = run(), run(), run(seed=1), run(partition="random")
    assert first == again
    assert len({outputs["model.safetensors"] for outputs in (first, other, random)}) == 3


STOPPED: list[tuple[str, Optimizer, dict[str, Any]]] = [
    ("rnn", "sgd", {"layers": 2}),
    ("lstm", "sgd", {"partition": "random", "bptt_keep": 0.9}),
    ("gru", "momentum", {"learning_rate": 0.1, "schedule": "step", "decay_epochs": 2, "averaging": 0}),
    ("lstm", "adamw", {**EVERYTHING, "learning_rate": 0.03, "schedule": "cosine", "variational": False}),
    ("gru", "adam", {**EVERYTHING, "learning_rate": 0.03, "schedule": "plateau", "decay_epochs": 1}),
]


DOCUMENTS = ["the quick brown fox. " * (1 + number % 4) for number in range(12)]


@pytest.mark.parametrize(
    ("build", "cell", "optimizer", "changes", "documents"),
    # The loop is the same for all: whether an engine goes on is asked of each of its steps above.
    [
        *(("bptt", *row, []) for row in STOPPED),
        *((name, *STOPPED[-1], []) for name in ("mxnet", "torch")),
        ("bptt", *STOPPED[-1], DOCUMENTS),
    ],
    indirect=["build"],
)
def test_a_training_stopped_at_any_minibatch_goes_on_bit_for_bit(
    trained: Runs,
    tokenized: Tokenized,
    cell: str,
    optimizer: Optimizer,
    changes: dict[str, Any],
    documents: list[str],
) -> None:
    changes = {"cell": cell, "optimizer": optimizer, "epochs": 4, **changes}
    if documents:
        trained = trained.on(tokens=tokenized(trained.folder / "documents", documents=documents))
    whole = trained(**changes)
    positions = []
    for count in (1, 1, 1, 2, 3):
        with pytest.raises(Interrupted, match="the same command goes on from there"):
            trained("shared", interrupting(count), **changes)
        found = checkpoint.latest(trained.folder / "shared", 4)
        assert found
        positions.append((found[0].epoch, found[0].step))
    assert len({step for _, step in positions}) > 3, "the stops have to fall within epochs"
    assert len(set(positions)) == len(positions), "every call has to get on"
    assert trained("shared", **changes) == whole
    description = json.loads(whole["config.json"])
    assert (description["format"], description.get("ends")) == ((4, True) if documents else (2, None))


def interrupting(count: int) -> Progress:
    """Progress that asks to stop when it is called for the ``count``-th time."""
    calls = itertools.count(1)

    def progress(done: float, total: float, figures: str) -> None:
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGINT)

    return progress


def test_any_thread_trains_the_same(trained: Runs) -> None:
    results = []
    thread = threading.Thread(target=lambda: results.append(trained()))
    thread.start()
    thread.join()
    assert results == [trained()]


# A process that trains until it is killed, and reports each checkpoint.
CHILD = """
import json, sys
from importlib import import_module
from pathlib import Path
from data.errors import Interrupted
from data.progress import Progress
from stages.config import TrainConfig
from stages.train import train
from stages.training.device import Device
silent = lambda *call: None
config, tokens, out, checkpoints, module, name = sys.argv[1:]
build = lambda recipe: getattr(import_module(module), name)(recipe, Device("cpu"))
folders = {"tokens": Path(tokens), "out": Path(out), "checkpoints": Path(checkpoints)}
try:
    train(TrainConfig(**json.loads(config)), **folders, progress=silent, engine=build)
except Interrupted as interrupted:
    print(interrupted)
    raise SystemExit(interrupted.exit_code)
"""


def child(
    trained: Runs,
    build: Build,
    first: Callable[[], object] | None = None,
    **changes: Any,
) -> Child:
    out = trained.folder / f"child{time.monotonic_ns()}"
    out.mkdir()
    config = json.dumps({**trained.small, **changes})
    folders = (trained.tokens, out, trained.folder / "shared")
    return out, subprocess.Popen(
        [sys.executable, "-c", CHILD, config, *folders, build.module, build.name],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=first,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize(
    ("build", "cell", "signum"),
    [("mxnet", "rnn", signal.SIGTERM), ("bptt", "lstm", signal.SIGKILL), ("torch", "gru", signal.SIGINT)],
    indirect=["build"],
)
def test_a_killed_process_loses_nothing(trained: Runs, build: Build, cell: str, signum: signal.Signals) -> None:
    _, process = child(trained, build, cell=cell, epochs=100_000)
    while not list((trained.folder / "shared").glob("*.safetensors")):
        assert process.poll() is None, "the child ended before it was killed"
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signum)
    said, _ = process.communicate(timeout=30)
    if signum == signal.SIGKILL:
        assert process.returncode == -signum
    else:
        assert process.returncode == 128 + signum
        assert "the same command goes on from there" in said
    found = checkpoint.latest(trained.folder / "shared", 100_000)
    assert found
    train = found[0]
    assert (train.epoch, train.step) > (0, 0)
    assert trained("shared", cell=cell, epochs=train.epoch + 2) == trained(cell=cell, epochs=train.epoch + 2)


def test_processes_and_numbers_of_cores_agree(
    trained: Runs, build: Build, tokenized: Tokenized, tmp_path: Path
) -> None:
    """A training goes on in another process, which has one thread on one core."""
    if sys.platform != "linux" or len(os.sched_getaffinity(0)) == 1:
        pytest.skip("only on Linux, and with two cores, can a process be kept on one of them")
    cores = os.sched_getaffinity(0)
    trained = trained.on(
        tokens=tokenized(tmp_path / "longer", text="the quick brown fox. " * 200, valid=0.6)
    )  # validated as several rows
    changes: dict[str, Any] = {"cell": "lstm", "hidden_size": 128, "batch_size": 16, "epochs": 2}
    with pytest.raises(Interrupted):
        trained("shared", interrupting(2), **changes)
    out, process = child(trained, build, first=lambda: os.sched_setaffinity(0, {min(cores)}), **changes)
    expected = trained(**changes)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected
