"""A mixture that follows a text: each token is predicted from what came before it, and from nothing else."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data.tables.tokens import END_ID
from stages.lm import following, scoring, side_by_side
from stages.lm.counting import Counting
from stages.lm.following import Following
from stages.lm.mixture import Mixture
from stages.training import adaptation
from tests.stages.lm.test_mixture import SHARES, made, text
from tests.stages.lm.test_side_by_side import network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Losses = NDArray[np.float32]

TEXT = text(300, seed=11)
ARCHITECTURE = network().architecture


def adapted(ids: Any, rate: float = 0.05, seeds: tuple[int, ...] = (1,)) -> Losses:
    """What each token of a text costs a mixture whose networks take steps."""
    networks = [ARCHITECTURE.initial("uniform", seed) for seed in seeds]
    return np.concatenate([*adaptation.losses(ARCHITECTURE, networks, rate, [ids], mixture=made())])


def alone(ours: Mixture, ids: Any) -> Losses:
    """What each token costs the network."""
    return np.concatenate([*ours.network.losses(ids)])


def followed(ours: Mixture, nats: Losses, ids: Any, cuts: Any = ()) -> Losses:
    reading, edges = Following(ours), [0, *cuts, len(ids) - 1]
    return np.concatenate([reading.losses(nats[a:b], ids[a : b + 1]) for a, b in itertools.pairwise(edges)])


def test_it_says_what_its_definition_says() -> None:
    ours = made()
    network = np.exp(-alone(ours, TEXT).astype(np.float64))
    nats, found = Counting(ours.ngram).read(TEXT, ours.ngram.zero_state())
    expected, said = [], 0.0
    for p, q, length in zip(network, np.exp(-nats), found, strict=True):
        odds = SHARES[length] / (1 - SHARES[length]) * np.exp(said)
        share = odds / (1 + odds)
        expected.append(-np.log(share * p + (1 - share) * q))
        said = (1 - following._FORGOTTEN) * (said + following._EVIDENCE * np.log(p / q))
    np.testing.assert_allclose(followed(ours, alone(ours, TEXT), TEXT), expected, rtol=1e-5)


@pytest.mark.parametrize("cuts", [[1], [150], range(1, 299)])
def test_where_a_text_is_cut_does_not_show(cuts: Any) -> None:
    ours = made()
    nats = alone(ours, TEXT)
    np.testing.assert_array_equal(followed(ours, nats, TEXT, cuts), followed(ours, nats, TEXT))


@pytest.mark.parametrize("cuts", [[], [1], [150], range(1, 299)])
@pytest.mark.parametrize("ends", [False, True])
def test_networks_may_stand_still(cuts: Any, ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "MOST", 40)  # so that they read it in several chunks
    ours, ids = made(ends), TEXT.copy()
    if ends:
        ids[::37] = END_ID
    found = np.concatenate([*following.carried(ours, np.split(ids, [*cuts]))])
    each = [*scoring.carried(ours.network, [ids])]
    assert len(each) > 3
    np.testing.assert_array_equal(found, followed(ours, np.concatenate(each), ids))
    assert found.mean() < np.concatenate([*ours.losses(ids)]).mean()


def test_several_networks_stand_beside_the_n_gram_as_one() -> None:
    networks = [ARCHITECTURE.initial("uniform", seed) for seed in (1, 2)]
    nats = np.concatenate([*adaptation.losses(ARCHITECTURE, networks, 0.05, [TEXT])])
    np.testing.assert_array_equal(adapted(TEXT, 0.05, seeds=(1, 2)), followed(made(), nats, TEXT))


@pytest.mark.parametrize("at", [1, 57, 240])
def test_what_comes_later_changes_nothing(at: int) -> None:
    permuted = TEXT.copy()
    permuted[at + 1 :] = np.random.default_rng(at).permutation(permuted[at + 1 :])
    assert (permuted != TEXT).any()
    whole, changed = adapted(TEXT), adapted(permuted)
    np.testing.assert_array_equal(changed[:at], whole[:at])
    assert (changed[at:] != whole[at:]).any()


def test_all_three_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    again = np.tile(text(40, seed=12)[::-1], 8)
    ours = made()
    still = np.concatenate([*ours.losses(again)]).mean()
    learnt = adapted(again).mean()
    assert learnt < adapted(again, rate=1e-9).mean() < still
    with monkeypatch.context() as patch:
        patch.setattr(following, "_EVIDENCE", 0.0)
        assert learnt < adapted(again).mean()
