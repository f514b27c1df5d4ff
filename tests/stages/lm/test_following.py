"""A mixture that follows a text: each token is predicted from what came before it, and from nothing else."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from stages.lm import following
from stages.lm.counting import Counting
from stages.lm.following import Following
from stages.lm.mixture import Mixture
from stages.training import adaptation
from tests.stages.lm.test_mixture import SHARES, made, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.stages.conftest import Build

    Losses = NDArray[np.float32]

TEXT = text(300, seed=11)


@pytest.fixture
def adapted(build: Build) -> Callable[..., Losses]:
    """What each token of a text costs a mixture whose network takes steps."""

    def losses(ids: Any, rate: float = 0.5) -> Losses:
        ours = made()
        weights = ours.network.architecture.initial("uniform", 1)
        found = adaptation.losses(ours.network.architecture, weights, rate, [ids], engine=build, mixture=ours)
        return np.concatenate([*found])

    return losses


def followed(ours: Mixture, ids: Any, cuts: Any = ()) -> Losses:
    reading, edges = Following(ours), [0, *cuts, len(ids) - 1]
    return np.concatenate([reading.losses(ours.network, ids[a : b + 1]) for a, b in itertools.pairwise(edges)])


def test_it_says_what_its_definition_says() -> None:
    ours = made()
    network = np.exp(-np.concatenate([*ours.network.losses(TEXT)]).astype(np.float64))
    nats, found = Counting(ours.ngram).read(TEXT, ours.ngram.zero_state())
    expected, said = [], 0.0
    for p, q, length in zip(network, np.exp(-nats), found, strict=True):
        odds = SHARES[length] / (1 - SHARES[length]) * np.exp(said)
        share = odds / (1 + odds)
        expected.append(-np.log(share * p + (1 - share) * q))
        said = (1 - following._FORGOTTEN) * (said + following._EVIDENCE * np.log(p / q))
    np.testing.assert_allclose(followed(ours, TEXT), expected, rtol=1e-5)


@pytest.mark.parametrize("cuts", [[1], [150], range(1, 299)])
def test_where_a_text_is_cut_does_not_show(cuts: Any) -> None:
    np.testing.assert_allclose(followed(made(), TEXT, cuts), followed(made(), TEXT), rtol=1e-5)


@pytest.mark.parametrize("at", [1, 57, 240])
def test_what_comes_later_changes_nothing(adapted: Callable[..., Losses], at: int) -> None:
    permuted = TEXT.copy()
    permuted[at + 1 :] = np.random.default_rng(at).permutation(permuted[at + 1 :])
    assert (permuted != TEXT).any()
    whole, changed = adapted(TEXT), adapted(permuted)
    np.testing.assert_array_equal(changed[:at], whole[:at])
    assert (changed[at:] != whole[at:]).any()


def test_all_three_learn(adapted: Callable[..., Losses], monkeypatch: pytest.MonkeyPatch) -> None:
    again = np.tile(text(40, seed=12)[::-1], 8)
    ours = made()
    still = np.concatenate([*ours.losses(again)]).mean()
    learnt = adapted(again).mean()
    assert learnt < adapted(again, rate=1e-9).mean() < still
    with monkeypatch.context() as patch:
        patch.setattr(following, "_EVIDENCE", 0.0)
        assert learnt < adapted(again).mean()
