"""The interval of a gain: Student's t over a few long blocks."""

from __future__ import annotations

import numpy as np
import pytest

from stages.config import PromotionConfig
from stages.promotion.interval import blocks, cut, interval, quantile, standard_error

RULE = PromotionConfig()


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    [
        (0.995, 1, 63.657),
        (0.995, 2, 9.925),
        (0.95, 3, 2.353),
        (0.995, 4, 4.604),
        (0.9995, 7, 5.408),
        (0.975, 10, 2.228),
        (0.995, 19, 2.861),
        (0.975, 120, 1.980),
    ],
)
def test_quantiles_are_those_of_the_tables(probability: float, freedom: int, expected: float) -> None:
    assert quantile(probability, freedom) == pytest.approx(expected, abs=5e-4)
    assert quantile(0.5, freedom) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("characters", "shape"),
    [(7, (5, 4)), (2_500, (5, 4)), (5_999, (5, 4)), (6_000, (6, 4)), (12_345, (12, 2)), (20_000, (20, 1))],
)
def test_a_text_is_cut_into_few_blocks_of_one_length(characters: int, shape: tuple[int, int]) -> None:
    assert blocks(characters, RULE) == shape
    assert blocks(10**6 + characters, RULE) == (20, 1)
    parts = cut(characters, shape[0] * shape[1])
    lengths = np.bincount(parts, minlength=shape[0] * shape[1])
    assert lengths.sum() == characters
    assert lengths.max() - lengths.min() <= 1
    assert (np.diff(parts) >= 0).all()


def test_how_a_text_is_cut_is_for_the_rule_to_say() -> None:
    few = {"fewest_blocks": 3, "most_blocks": 4}
    assert blocks(10_000, PromotionConfig(block_length=2_000, **few)) == (4, 1)
    assert blocks(10_000, PromotionConfig(block_length=5_000, **few)) == (3, 2)


def test_of_pieces_of_one_length_the_standard_error_is_that_of_a_mean() -> None:
    gains = np.array([30.0, 10, 20, 50, 40])
    assert standard_error(gains, np.full(5, 100.0)) == pytest.approx((gains / 100).std(ddof=1) / 5**0.5)
    lengths = np.array([4.0, 9, 5])
    assert standard_error(3 * lengths, lengths) == pytest.approx(0)


def test_what_goes_on_for_long_shows_in_the_blocks_and_luck_in_the_parts() -> None:
    alternating = np.array([[0.0, 200], [200, 0], [0, 200], [0, 200], [200, 0]])
    lengths = np.full((5, 2), 100.0)
    lower, upper = interval(alternating, lengths, 0.99)
    assert lower < 0 < upper, "each block has the same gain by chance"
    lasting = np.repeat([[300.0], [100], [200], [500], [400]], 2, axis=1)
    lower, upper = interval(lasting, lengths, 0.99)
    reach = 4.604095 * (lasting[:, 0] / 100).std(ddof=1) / 5**0.5
    assert (lower, upper) == pytest.approx((3 - reach, 3 + reach), abs=1e-6)


def test_it_holds_the_gain_as_often_as_it_says() -> None:
    """Of five blocks of other lengths, and of twenty: a normal interval of five would miss five times as often."""
    rng = np.random.default_rng(11)
    for number in (5, 20):
        characters = rng.integers(400, 600, (4_000, number, 1)).astype(float)
        gains = 0.1 * characters + rng.normal(0, 3, characters.shape) * np.sqrt(characters)
        ends = [interval(row, length, 0.99) for row, length in zip(gains, characters, strict=True)]
        missed = sum(not lower <= 0.1 <= upper for lower, upper in ends)
        assert 15 <= missed <= 68  # 40 expected; a binomial of 4,000 at 1 % leaves this once in ten thousand
