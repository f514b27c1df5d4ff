"""What the engine `torch` computes on a device: gradients, bits, the training of the preset `book`."""

from __future__ import annotations

import time
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.lm.metrics import perplexity
from stages.lm.network import Network
from stages.training import dropout
from stages.training.bptt import BpttEngine
from stages.training.engine import EngineState, Recipe, Step
from stages.training.minibatches import whole
from stages.training.torch import TorchEngine
from tests.card.preset import epochs, settings
from tests.card.table import CPU

if TYPE_CHECKING:
    from data.tables.tokens import Ids
    from stages.lm.parameters import Architecture, Parameters
    from stages.training.engine import Arrays, Engine
    from tests.card.table import Table, Trial

CLOSE = 2e-5
"""‖a - b‖ / ‖b‖ of a parameter's gradient. Float32 has 24 bits: sums of a thousand products in another order differ by
some 1e-6. TF32 has 11, and would differ by some 1e-3."""
ALIKE = 0.02
"""Of two perplexities, relatively: once rounding has parted two trainings they end in other weights, as good.
`torch` and `bptt` on a CPU are 0.7 % apart after 200 epochs of the book, and 0.1 % after 300."""
DROPPED = {"input_dropout": 0.2, "hidden_dropout": 0.2, "output_dropout": 0.4, "weight_dropout": 0.15}


def gradients(trial: Trial, table: Table) -> None:
    """Gradients, as ‖a - b‖ / ‖b‖ of the parameter where that is largest"""
    size = trial.hidden
    two: dict[str, Any] = {"layers": 2, "embedding_size": size}
    models: dict[str, dict[str, Any]] = {
        "rnn, relu": {},
        "rnn, tanh, 2 layers": {"activation": "tanh", "layers": 2},
        "gru": {"cell": "gru"},
        "gru, 2 layers, tied": {"cell": "gru", "tie_weights": True, **two},
        "lstm, 2 layers": {"cell": "lstm", "layers": 2},
        "lstm, embedding": {"cell": "lstm", "embedding_size": size // 2},
        "rnn, 3 layers, masks": {"activation": "tanh", "layers": 3, **DROPPED},
        "gru, 2 layers, tied, masks": {"cell": "gru", "tie_weights": True, "variational": False, **two, **DROPPED},
        "lstm, 2 layers, masks": {"cell": "lstm", **two, **DROPPED},
        "rnn, truncated": {"activation": "tanh", "bptt_keep": 0.9},
        "lstm, 2 layers, truncated, masks": {"cell": "lstm", "bptt_keep": 0.9, **two, **DROPPED},
    }
    for name, changes in models.items():
        # With momentum, at a rate of 1, the velocity after one step from zero is the gradient's negative.
        config = settings("book", hidden_size=size, optimizer="momentum", clip_norm=0.0, **changes)
        recipe = Recipe.of(config, trial.vocab_size)
        rows, width = config.batch_size, config.num_steps
        ids = trial.content[: rows * width + 1]
        inputs, targets = (side.reshape(rows, width).astype(np.int32) for side in (ids[:-1], ids[1:]))
        masks = dropout.masks(config, recipe.architecture, width, 1)
        step = Step(inputs=inputs, targets=targets, masks=masks, learning_rate=1.0, number=1)
        weights = shaken(recipe.architecture)

        def gradient(
            engine: Engine, recipe: Recipe = recipe, weights: Parameters = weights, step: Step = step
        ) -> Arrays:
            engine.restore(EngineState.initial(recipe, weights))
            engine.run([step])
            moments = engine.state().moments
            return {name: -moments[f"momentum/{name}"] for name in weights}

        found = gradient(TorchEngine(recipe, trial.device))
        away = {"bptt on the CPU": apart(found, gradient(BpttEngine(recipe, CPU)))}
        if trial.gpu:
            away["torch on the CPU"] = apart(found, gradient(TorchEngine(recipe, CPU)))
        if not masks:
            away["slopes in float64"] = off_slope(recipe.architecture, weights, ids, width, found)
        for reference, distance in away.items():
            table.require(distance <= CLOSE, f"{name}: from {reference}", f"{distance:.1e}", f"at most {CLOSE:.0e}")


def bits(trial: Trial, table: Table) -> None:
    """The same steps, the same bits: once more, divided over calls, and stopped"""
    two: dict[str, Any] = {"layers": 2, "embedding_size": trial.hidden}
    adam = {"learning_rate": 0.003, "weight_decay": 0.1}
    models: dict[str, dict[str, Any]] = {
        "rnn, the book's": {},
        "lstm, 2 layers, masks, adamw": {"cell": "lstm", "optimizer": "adamw", **two, **adam, **DROPPED},
        "gru, truncated, adam": {"cell": "gru", "bptt_keep": 0.9, "optimizer": "adam", **adam},
    }
    for name, changes in models.items():
        config = settings("book", hidden_size=trial.hidden, **changes)
        recipe = Recipe.of(config, trial.vocab_size)
        plan = list(islice(chain.from_iterable(epochs(config, trial.content, trial.vocab_size)), trial.steps))

        def trained(*ends: int, anew: bool = False, recipe: Recipe = recipe, plan: list[Step] = plan) -> list[Any]:
            """What comes of the steps in calls that end there; ``anew`` in an engine of its own for each."""
            state = EngineState.initial(recipe, shaken(recipe.architecture))
            engine, figures = None, []
            for begin, end in zip((0, *ends), (*ends, trial.steps), strict=True):
                if engine is None or anew:
                    engine = TorchEngine(recipe, trial.device)
                    engine.restore(state)
                figures += engine.run(plan[begin:end])
                state = engine.state()
            kinds = (state.parameters, state.averages, state.moments, state.recurrent)
            return [figures, *(array.tobytes() for kind in kinds for array in kind.values())]

        expected = trained()
        table.require(trained() == expected, f"{name}: once more")
        table.require(trained(1, 9, 11) == expected, f"{name}: in calls of 1, 8, 2 and {trial.steps - 11} steps")
        # One goes on with an epoch's last minibatch, which is shorter and may be launched in another way.
        shorter = next(index for index, step in enumerate(plan) if step.inputs.shape[1] < config.num_steps)
        for stop in (1, shorter, trial.steps - 2):
            table.require(trained(stop, anew=True) == expected, f"{name}: stopped after {stop}")


def book(trial: Trial, table: Table) -> None:
    """The preset `book`"""
    config = settings("book", hidden_size=trial.hidden)
    recipe = Recipe.of(config, trial.vocab_size)
    plan = list(islice(epochs(config, trial.content, trial.vocab_size), trial.epochs))
    tokens = sum(step.inputs.size for steps in plan[1:] for step in steps)
    ours, theirs = TorchEngine(recipe, trial.device), BpttEngine(recipe, CPU)
    begins, ends = [], []
    for engine, device in ((ours, trial.device), (theirs, CPU)):
        engine.restore(EngineState.initial(recipe, recipe.architecture.initial(config.initializer, config.seed)))
        begins.append(np.array([figures.loss for figures in engine.run(plan[0])]))
        began = time.perf_counter()
        for steps in plan[1:]:
            engine.run(steps)
        rate = tokens / (time.perf_counter() - began)
        table.note(f"tokens/s, an epoch at a time: {type(engine).__name__}", f"{rate:,.0f}", on=device)
        ends.append(engine.loss(whole(trial.content)))
    away = float(np.abs(begins[0] / begins[1] - 1).max())
    table.require(away <= 1e-4, "losses of the first epoch: from bptt on the CPU", f"{away:.1e}", "at most 1e-04")
    found, expected = map(perplexity, ends)
    table.note(
        f"perplexity after {trial.epochs} epochs: bptt", f"{expected:.4f}", "1.03 after 500 of its own text", on=CPU
    )
    alike = abs(found / expected - 1) <= ALIKE
    table.require(alike, f"perplexity after {trial.epochs} epochs: torch", f"{found:.4f}", f"within {ALIKE:.0%}")
    read = Network(recipe.architecture, ours.state().averages).loss(trial.content)
    same = abs(read - ends[0]) <= 1e-5
    table.require(same, "its loss, the model read by NumPy", f"{read:.6f}", f"{ends[0]:.6f}, within 1e-05", on=CPU)


def shaken(architecture: Architecture) -> Parameters:
    """Weights of which none is zero: at the first ones a mistake in a bias would not show.

    Where rounding moves the argument of a ReLU over zero, gradients differ by some 1e-3. With this seed, of the book's
    model none is nearer to it than 2e-6, fifty times what rounding does, on the Time Machine and on the short story.
    """
    rng = np.random.default_rng(74)
    first = architecture.initial("uniform", seed=1)
    return {name: array + rng.normal(0, 0.05, array.shape).astype(np.float32) for name, array in first.items()}


def apart(found: Arrays, expected: Arrays) -> float:
    """The largest ‖a - b‖ / ‖b‖ of a parameter."""
    return max(float(np.linalg.norm(found[name] - b) / np.linalg.norm(b)) for name, b in expected.items())


def off_slope(architecture: Architecture, weights: Parameters, ids: Ids, width: int, gradient: Arrays) -> float:
    """How far the loss's slope is from what the gradient says of it, relatively.

    Along the direction in which every parameter moves along its own gradient by a length of 1 it is the sum of the
    gradients' lengths. It is taken as a difference of losses of `stages.lm.network`, which knows no gradient, in
    float64.
    """
    lengths = {name: float(np.linalg.norm(array.astype(np.float64))) for name, array in gradient.items()}

    def loss(far: float) -> float:
        moved: Any = {
            name: array.astype(np.float64) + far / lengths[name] * gradient[name] for name, array in weights.items()
        }
        return float(np.concatenate([*Network(architecture, moved).windowed_losses(ids, width)]).mean())

    expected = sum(lengths.values())
    return abs((loss(1e-6) - loss(-1e-6)) / 2e-6 / expected - 1)
