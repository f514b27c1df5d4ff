"""Dynamic evaluation: predicted first, then learnt from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data.errors import ConfigError
from data.tables.tokens import Ids
from data.tables.vocab import Vocab
from stages.lm.layers import Vector
from stages.lm.model import LanguageModel
from stages.lm.parameters import Architecture, Parameters
from stages.training import adaptation
from stages.training.adaptation import SEGMENT

if TYPE_CHECKING:
    from tests.stages.conftest import Build

Read = Callable[[Architecture, float, Iterable[Ids]], Vector]
LETTERS = Vocab(["<unk>", *" abcdefgh"], [0] * 10)
CELLS = [
    Architecture("rnn", "relu", 16, 1, len(LETTERS)),
    Architecture("gru", "tanh", 16, 2, len(LETTERS), 6),
    Architecture("lstm", "tanh", 16, 2, len(LETTERS), 16, True),
]
every_cell = pytest.mark.parametrize("architecture", CELLS, ids=lambda architecture: architecture.cell)
IDS = np.random.default_rng(3).integers(0, len(LETTERS), 7 * SEGMENT + 5).astype(np.uint8)


def weights(architecture: Architecture) -> Parameters:
    return architecture.initial("uniform", seed=1)


@pytest.fixture
def read(build: Build) -> Read:
    """What each token of a text costs, on this engine."""

    def losses(architecture: Architecture, rate: float, pieces: Iterable[Ids]) -> Vector:
        found = adaptation.losses(architecture, weights(architecture), rate, pieces, engine=build)
        return np.concatenate(list(found))

    return losses


def standing_still(architecture: Architecture, ids: Ids) -> Vector:
    model = LanguageModel(architecture, weights(architecture), LETTERS, "char", "lower")
    return np.concatenate(list(model.network.losses(ids)))


@every_cell
def test_weights_that_hardly_move_measure_what_weights_that_stand_still_do(
    read: Read, architecture: Architecture
) -> None:
    found = read(architecture, 1e-9, [IDS])
    assert found.shape == (len(IDS) - 1,)
    expected = standing_still(architecture, IDS)
    for start in range(0, len(expected), SEGMENT):
        segment = slice(start, start + SEGMENT)
        np.testing.assert_allclose(found[segment], expected[segment].mean(), rtol=1e-5)


@every_cell
def test_a_segment_is_predicted_before_it_is_learnt_from(read: Read, architecture: Architecture) -> None:
    expected, found = standing_still(architecture, IDS), read(architecture, 1.0, [IDS])
    np.testing.assert_allclose(found[:SEGMENT], expected[:SEGMENT].mean(), rtol=1e-5)
    assert not np.isclose(found[SEGMENT], expected[SEGMENT : 2 * SEGMENT].mean(), rtol=1e-3)
    changed = IDS.copy()
    changed[3 * SEGMENT + 1 :] = 0
    before = slice(0, 3 * SEGMENT)
    np.testing.assert_array_equal(read(architecture, 1.0, [changed])[before], found[before])


def mean(architecture: Architecture, weights: Mapping[str, Any], ids: Ids, states: Any = None) -> Any:
    """Of the losses, in the type of the weights."""
    model = LanguageModel(architecture, dict(weights), LETTERS, "char", "lower")
    return np.concatenate(list(model.network.losses(ids, states))).mean()


def exact(architecture: Architecture) -> dict[str, Any]:
    return {name: array.astype(np.float64) for name, array in weights(architecture).items()}


@cache
def slopes(architecture: Architecture) -> dict[str, Any]:
    """Of the first segment, by differences; the same for each engine and each bound."""
    given = exact(architecture)

    def slope(name: str, place: tuple[int, ...]) -> float:
        sides = []
        for moved in (1e-5, -1e-5):
            weights = {**given, name: given[name].copy()}
            weights[name][place] += moved
            sides.append(mean(architecture, weights, IDS[: SEGMENT + 1]))
        return float((sides[0] - sides[1]) / 2e-5)

    return {
        name: np.array([slope(name, place) for place in np.ndindex(array.shape)]).reshape(array.shape)
        for name, array in given.items()
    }


@every_cell
@pytest.mark.parametrize("clip_norm", [adaptation.CLIP_NORM, 0.05])
def test_after_a_segment_the_weights_take_one_step_down_its_slope(
    build: Build, architecture: Architecture, clip_norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "CLIP_NORM", clip_norm)
    small = replace(architecture, hidden_size=4, embedding_size=4 if architecture.tie_weights else 0)
    given, ids = exact(small), IDS[: 2 * SEGMENT + 1]
    norm = np.sqrt(sum((array**2).sum() for array in slopes(small).values()))
    assert 0.05 < norm < 1, "one of the two clips"
    step = min(1, clip_norm / norm)
    states = LanguageModel(small, given, LETTERS, "char", "lower").network.zero_state()
    mean(small, given, ids[: SEGMENT + 1], states)
    stepped = {name: array - step * slopes(small)[name] for name, array in given.items()}
    expected = mean(small, stepped, ids[SEGMENT:], states)
    found = np.concatenate(list(adaptation.losses(small, weights(small), 1.0, [ids], engine=build)))
    np.testing.assert_allclose(found[SEGMENT:], expected, rtol=1e-5)


@every_cell
def test_what_comes_again_is_foreseen(read: Read, architecture: Architecture) -> None:
    again = np.tile(np.arange(1, 9, dtype=np.uint8), 100)
    found = read(architecture, 1.0, [again])
    assert found[-100:].mean() < standing_still(architecture, again)[-100:].mean() - 0.15


@pytest.mark.parametrize("size", [1, 7, SEGMENT, SEGMENT + 1, 50])
def test_where_a_text_is_cut_does_not_show(read: Read, size: int) -> None:
    pieces = [IDS[at : at + size] for at in range(0, len(IDS), size)]
    np.testing.assert_array_equal(read(CELLS[0], 0.5, pieces), read(CELLS[0], 0.5, [IDS]))


def test_the_weights_that_were_given_stay(build: Build) -> None:
    given = weights(CELLS[1])
    list(adaptation.losses(CELLS[1], given, 1.0, [IDS], engine=build))
    for name, array in weights(CELLS[1]).items():
        np.testing.assert_array_equal(given[name], array)


def test_a_score_is_of_the_whole_text(read: Read, build: Build) -> None:
    model = LanguageModel(CELLS[2], weights(CELLS[2]), LETTERS, "char", "lower")
    text = "a bad cabbage had a bad egg " * 30
    score = model.score(text, partial(adaptation.losses, CELLS[2], weights(CELLS[2]), 0.5, engine=build))
    ids = np.array(LETTERS.ids(text), np.uint8)
    assert score.loss == pytest.approx(read(CELLS[2], 0.5, [ids]).mean(), rel=1e-6)
    assert score.tokens == len(text) - 1
    assert score.loss < model.score(text).loss


def test_a_rate_that_is_too_high_is_one_sentence(read: Read) -> None:
    with pytest.raises(ConfigError, match=r"at a rate of 1e\+30 the model does not learn .* lower it"):
        read(CELLS[0], 1e30, [IDS])
