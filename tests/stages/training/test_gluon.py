"""What is MXNet's own: the chapter's shapes and its plain, eager loop, one graph per step, and a quiet import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

if find_spec("mxnet") is None:
    pytest.skip("MXNet is not installed", allow_module_level=True)

from stages.lm.parameters import Architecture, Parameters
from stages.training.device import Device
from stages.training.engine import EngineState, Recipe, Step
from stages.training.minibatches import Minibatch

if TYPE_CHECKING:  # it loads MXNet, which takes two seconds of whoever collects the tests
    from stages.training.gluon import GluonEngine

Rnnlm = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[3]
VOCAB, HIDDEN, BATCH, STEPS = 11, 16, 4, 7
CELLS = [("rnn", 1), ("rnn", 2), ("gru", 1), ("gru", 2), ("lstm", 1), ("lstm", 2)]


def minibatches(count: int) -> list[Minibatch]:
    ids = np.random.default_rng(0).integers(0, VOCAB, (BATCH, count * STEPS + 1)).astype(np.int32)
    return [(ids[:, i : i + STEPS], ids[:, i + 1 : i + STEPS + 1]) for i in range(0, count * STEPS, STEPS)]


def steps(count: int) -> list[Step]:
    return [
        Step(inputs=inputs, targets=targets, learning_rate=1.0, number=number)
        for number, (inputs, targets) in enumerate(minibatches(count), 1)
    ]


def engine(cell: Any, layers: int, clip_norm: float = 1.0, **changes: Any) -> GluonEngine:
    from stages.training.gluon import GluonEngine

    architecture = Architecture(cell, "relu", HIDDEN, layers, VOCAB)
    recipe = Recipe(architecture=architecture, batch_size=BATCH, optimizer="sgd", clip_norm=clip_norm, **changes)
    made = GluonEngine(recipe, Device("cpu"))
    made.restore(EngineState.initial(recipe, architecture.initial("normal", seed=3)))
    return made


def book_loop(
    start: GluonEngine, batches: list[Minibatch], learning_rate: float, clip_norm: float
) -> tuple[npt.NDArray[np.float64], Parameters, list[Any]]:
    """The chapter's loop on the engine's own model: eager, op by op, waiting in every step."""
    from stages.training import gluon

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
    return np.array(figures), start.state().parameters, [array.asnumpy() for array in state]


def test_shapes_are_the_chapters() -> None:
    from stages.training import gluon

    gluon.npx.set_np()
    model = gluon.RNNModel(Architecture("rnn", "relu", 256, 1, 28))
    model.initialize()
    state = model.begin_state(32, gluon.mx.cpu())
    ids = gluon.mnp.zeros((32, 35), dtype="int32")
    outputs, new_state = model.recur(model.embed(ids), state, {}, {})
    logits, _ = model(ids, state)
    assert model.embed(ids).shape == (35, 32, 28)
    assert [array.shape for array in state] == [array.shape for array in new_state] == [(1, 32, 256)]
    assert outputs.shape == (35, 32, 256)
    assert logits.shape == (35 * 32, 28)


@pytest.mark.parametrize(("cell", "layers"), CELLS)
def test_steps_agree_with_the_books_loop(cell: str, layers: int) -> None:
    batches = minibatches(12)
    free, *_ = book_loop(engine(cell, layers), batches, 1.0, 0)
    clip_norm = float(np.median(free[:, 1]))
    expected, expected_weights, expected_state = book_loop(engine(cell, layers), batches, 1.0, clip_norm)
    assert 0 < (expected[:, 1] > clip_norm).sum() < 12, "the test has to clip some steps and not others"
    tuned = engine(cell, layers, clip_norm=clip_norm)
    np.testing.assert_allclose(tuned.run(steps(12)), expected, rtol=1e-5)
    ended = tuned.state()
    for name, array in ended.parameters.items():
        np.testing.assert_allclose(array, expected_weights[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for array, wanted in zip(ended.recurrent.values(), expected_state, strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-6)


def test_the_norm_that_clips_is_that_of_all_numbers_however_many() -> None:
    from stages.training.gluon import GluonEngine

    architecture = Architecture("rnn", "tanh", 1024, 1, VOCAB)
    recipe = Recipe(architecture=architecture, batch_size=BATCH, optimizer="sgd", clip_norm=1.0)
    made = GluonEngine(recipe, Device("cpu"))
    made.restore(EngineState.initial(recipe, architecture.initial("uniform", seed=3)))
    [figures] = made.run(steps(1))
    squares = [(gradient.asnumpy().astype(np.float64) ** 2).sum() for gradient in made._gradients]
    assert figures.grad_norm == pytest.approx(np.sqrt(sum(squares)), rel=2e-6)


@pytest.mark.parametrize(("masks", "compiled"), [((), True), (("gradient",), False)])
def test_a_step_is_one_graph_unless_the_gradient_is_cut_step_by_step(masks: tuple[str, ...], compiled: bool) -> None:
    made = engine("gru", 1, masks=masks)
    assert made._training._active is compiled
    assert made._measuring._active is compiled


def test_importing_mxnet_changes_neither_numpy_nor_logging_nor_modules() -> None:
    code = (
        "import logging, sys, numpy; from stages.training import gluon; "
        "print([name for name in gluon._NUMPY_1_NAMES if name in vars(numpy)], logging.root.handlers, "
        "[name for name in sys.modules if name.startswith('distutils')])"
    )
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[] [] []\n"
    assert "distutils" not in done.stderr
    assert "storage.cc" not in done.stderr


def test_what_else_mxnet_says_while_its_note_is_kept_back_is_passed_on() -> None:
    code = (
        "import os; from stages.training import gluon\n"
        "with gluon._without_its_note():\n"
        "    os.write(2, b'[1:2] ../src/storage/storage.cc:202: Using Pooled\\nout of memory\\n')\n"
        "gluon.nd.zeros(3).wait_to_read(); os.write(2, b'after\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "out of memory\nafter\n"


def test_mxnet_trains_where_nothing_brings_distutils_and_whatever_the_environment_says_to_it(
    rnnlm: Rnnlm, tiny: Path, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("distutils", "setuptools"):
        (hidden / f"{name}.py").write_text("raise ModuleNotFoundError(__name__)", encoding="utf-8")
    said = {
        "MXNET_CPU_WORKER_NTHREADS": "x",  # for which it would abort
        "MXNET_ENGINE_TYPE": "none",  # for which it would fail
        "DNNL_MAX_CPU_ISA": "SSE41",  # with which other bytes would come out under the same key
    }
    environment = {**os.environ, **said, "RNNLM_STORE": str(tmp_path / "store"), "PYTHONPATH": str(hidden)}
    done = rnnlm("train", "--preset", tiny, "--set", "train.engine=mxnet", env=environment)
    assert re.findall(r"(\w+) in the environment is not heeded", done.stderr) == list(said)
