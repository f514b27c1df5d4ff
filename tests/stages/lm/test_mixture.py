"""A mixture is its parts, token by token, however it is read; its shares are those under which a text is likeliest."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data.tables.tokens import END_ID
from stages.lm import mixture as mixing
from stages.lm.compared import Compared
from stages.lm.mixture import Mixture, choose, halves
from stages.lm.ngram import NGram
from stages.lm.tally import summed
from tests.stages.lm.test_side_by_side import VOCAB, network

if TYPE_CHECKING:
    from numpy.typing import NDArray

ORDER = 4
SHARES = [0.9, 0.6, 0.3, 0.2]


def text(length: int, seed: int = 0) -> NDArray[np.uint8]:
    """Ids that say little by little what comes next, so that there is something to count."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, VOCAB, length).astype(np.uint8)
    known = rng.random(length) < 0.8
    for at in range(2, length):
        if known[at]:
            ids[at] = 2 + (ids[at - 1] + 2 * ids[at - 2]) % (VOCAB - 2)
    return ids


def made(ends: bool = False, **changes: Any) -> Mixture:
    counted = text(3_000)
    if ends:
        counted[::50] = END_ID
    return Mixture(network(ends=ends, **changes), NGram.fit(counted, VOCAB, ORDER, ends=ends), SHARES)


def expected(ours: Mixture, ids: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The loss of each token but the first, and what was said of each, one by one and from the definition."""
    inner, counts = ours.network.beginning(), ours.ngram.zero_state()
    if ours.ngram.ends:
        ours.ngram.advance(END_ID, counts)
    logits, losses, said = ours.network.readout(), [], []
    for id_, target in itertools.pairwise(ids.tolist()):
        ours.network.advance(id_, inner)
        ours.ngram.advance(id_, counts)
        likely = np.exp(logits(inner).astype(np.float64))
        share = SHARES[ours.ngram.found(counts)]
        both = share * likely / likely.sum() + (1 - share) * ours.ngram.probabilities(counts)
        losses.append(-np.log(both[target]))
        said.append(both)
    return np.array(losses), np.array(said)


@pytest.mark.parametrize("ends", [False, True])
def test_what_it_says_is_what_its_parts_say(ends: bool) -> None:
    ours, ids = made(ends), text(300, seed=1)
    if ends:
        ids[::37] = END_ID
    losses, said = expected(ours, ids)
    np.testing.assert_allclose(np.concatenate([*ours.losses(ids)]), losses, rtol=2e-5)
    states, readout = ours.beginning(), ours.readout()
    for id_, both in zip(ids.tolist(), said, strict=False):
        ours.advance(id_, states)
        np.testing.assert_allclose(np.exp(readout(states)), both, rtol=1e-5)
        assert np.exp(readout(states).astype(np.float64)).sum() == pytest.approx(1)
        np.testing.assert_array_equal(ours.readout(2)(states), readout(states)[2:])
    assert ours.loss(ids) == pytest.approx(losses.mean(), rel=1e-6)


def test_it_goes_on_from_where_it_was() -> None:
    ours, ids = made(), text(500, seed=2)
    whole, states, parts = np.concatenate([*ours.losses(ids)]), ours.beginning(), []
    for start, stop in itertools.pairwise([0, 1, 3, 200, 499]):
        parts += [*ours.losses(ids[start : stop + 1], states)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


def test_its_parts_stand_beside_it() -> None:
    ours, ids = made(ends=True), text(400, seed=4)
    other = ours.counting(text(500, seed=5))
    both = Compared(other, ours)
    [rows] = both.losses(ids, both.beginning())
    assert rows.shape == (5, len(ids) - 1)
    np.testing.assert_array_equal(rows[0], np.concatenate([*ours.network.losses(ids)]))
    for mixture, (counted, mixed) in zip((other, ours), (rows[1:3], rows[3:]), strict=True):
        np.testing.assert_array_equal(mixed, np.concatenate([*mixture.losses(ids)]))
        np.testing.assert_allclose(counted, np.concatenate([*mixture.ngram.losses(ids)]), rtol=1e-6)
    states, parts = both.beginning(), []
    for start, stop in itertools.pairwise([0, 1, 3, 200, 399]):
        parts += [*both.losses(ids[start : stop + 1], states)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), rows, atol=1e-6)
    windowed = [*both.windowed_losses(ids, 16)]
    flat = np.concatenate([*ours.windowed_losses(ids, 16)])
    np.testing.assert_array_equal(np.concatenate([rows[4] for rows in windowed]), flat)
    assert next(sums for sums, _ in summed(windowed))[4] == pytest.approx(windowed[0][4].sum())


# --- shares


def test_the_shares_are_those_under_which_the_text_is_likeliest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "_PRIOR", 1e-9)
    ours, ids = made(), text(4_000, seed=6)
    shares = choose([(ours, ids)])
    assert len(shares) == ORDER

    def loss(shares: list[float]) -> float:
        return Mixture(ours.network, ours.ngram, shares).loss(ids)

    best = loss(shares)
    for length, by in itertools.product(range(ORDER), (-0.05, 0.05)):
        others = [min(max(share + by * (at == length), 1e-6), 1 - 1e-6) for at, share in enumerate(shares)]
        assert loss(others) > best - 1e-7
    assert best < min(loss([share] * ORDER) for share in np.linspace(0.01, 0.99, 20))


def test_what_a_mixture_has_for_shares_does_not_matter() -> None:
    ours, ids = made(), text(2_000, seed=7)
    other = Mixture(ours.network, ours.ngram, [0.01] * ORDER)
    assert choose([(other, ids)]) == choose([(ours, ids)])


def test_each_half_is_read_by_a_mixture_that_has_counted_the_other() -> None:
    ours, training, held_out = made(), text(300, seed=8), text(101, seed=10)
    (one, first), (other, second) = halves(ours, training, held_out)
    np.testing.assert_array_equal(np.append(first, second[1:]), held_out)
    np.testing.assert_array_equal(first[-1:], second[:1])
    for mixture, counted in ((one, held_out[50:]), (other, held_out[:50])):
        expected = ours.counting(np.concatenate([training, counted]))
        assert mixture.loss(held_out) == expected.loss(held_out) != ours.counting(training).loss(held_out)


def test_where_a_text_changes_as_it_goes_on_the_ngram_has_the_share_of_one_that_has_counted_what_is_near() -> None:
    ours, training, (held_out, later) = made(), text(2_000, seed=8), np.split(np.tile(text(37, seed=9)[::-1], 40), 2)
    shares, before = (
        choose(readings) for readings in (halves(ours, training, held_out), [(ours.counting(training), held_out)])
    )
    counting = ours.counting(np.concatenate([training, held_out]))
    losses = [Mixture(ours.network, counting.ngram, some).loss(later) for some in (shares, before)]
    assert losses[0] < losses[1] - 0.1
    assert losses[0] < counting.ngram.loss(later) + 0.01


def test_a_part_that_is_never_right_keeps_a_little() -> None:
    ours = made()
    certain = Mixture(ours.network, NGram.fit(text(20_000, seed=9), VOCAB, ORDER), SHARES)
    shares = choose([(certain, text(20_000, seed=9))])
    assert all(0 < share < 0.2 for share in shares[1:])
    assert np.isfinite(Mixture(ours.network, certain.ngram, [1e-6] * ORDER).loss(text(50, seed=3)))
