"""The interval of a gain: Student's t over a few long blocks."""

from __future__ import annotations

import numpy as np
import pytest

from stages.config import PromotionConfig
from stages.promotion.interval import cut, interval, quantile

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
    ("characters", "blocks"), [(7, 5), (2_500, 5), (5_999, 5), (6_000, 6), (12_345, 12), (20_000, 20), (10**6, 20)]
)
def test_a_text_is_cut_into_blocks_of_one_length(characters: int, blocks: int) -> None:
    lengths = np.bincount(cut(characters, RULE))
    assert len(lengths) == blocks
    assert lengths.sum() == characters
    assert lengths.max() - lengths.min() <= 1
    assert (np.diff(cut(characters, RULE)) >= 0).all()


def test_of_blocks_of_one_length_it_is_that_of_a_mean() -> None:
    gains = np.array([30.0, 10, 20, 50, 40])
    lower, upper = interval(gains, np.full(5, 100.0), 0.99)
    reach = 4.604095 * (gains / 100).std(ddof=1) / 5**0.5
    assert (lower, upper) == pytest.approx((0.3 - reach, 0.3 + reach), abs=1e-6)
    assert interval(3 * np.array([4.0, 9, 5]), np.array([4.0, 9, 5]), 0.9) == pytest.approx((3, 3))


def test_it_holds_the_gain_as_often_as_it_says() -> None:
    """Of five blocks of other lengths, and of twenty: a normal interval of five would miss five times as often."""
    rng = np.random.default_rng(11)
    for number in (5, 20):
        characters = rng.integers(400, 600, (4_000, number)).astype(float)
        gains = 0.1 * characters + rng.normal(0, 3, characters.shape) * np.sqrt(characters)
        ends = [interval(row, length, 0.99) for row, length in zip(gains, characters, strict=True)]
        missed = sum(not lower <= 0.1 <= upper for lower, upper in ends)
        assert 15 <= missed <= 68  # 40 expected; a binomial of 4,000 at 1 % leaves this once in ten thousand
