"""How far a gain on a text may be chance: Student's t over blocks of that text.

Neighbouring characters are not independent, and what sets two models apart goes on for long, the longer the less alike
they are: many short blocks take chance for merit. So there are few blocks, each as long as the text allows, and with so
few of them what they scatter by is itself uncertain, which Student's t accounts for and a normal or a bootstrap
interval does not. The interval is about this text and these two models: not about another text, nor another seed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stages.config import PromotionConfig

    Floats = NDArray[np.float64]


def cut(characters: int, rule: PromotionConfig) -> NDArray[np.int32]:
    """The block of each of these characters, shape (characters,): blocks of one length, but for a character.

    There is one for every ``rule.block_length`` characters, yet no fewer than ``rule.fewest_blocks`` and no more than
    ``rule.most_blocks``.
    """
    number = min(max(characters // rule.block_length, rule.fewest_blocks), rule.most_blocks)
    blocks: NDArray[np.int32] = (np.arange(characters) * number // max(characters, 1)).astype(np.int32)
    return blocks


def interval(gains: Floats, characters: Floats, confidence: float) -> tuple[float, float]:
    """The confidence interval of the gain per character, from that of each block.

    With n blocks of gains g and characters c, r = Σ g / Σ c lies in the middle, and the ends are as many standard
    errors away as Student's t with n - 1 degrees of freedom says: √(n Σ (g - r c)² / (n - 1)) / Σ c, that of a ratio
    (Cochran, "Sampling Techniques", third edition, 1977, section 6.3, of an infinite population). Where all blocks are
    of one length it is the standard error of a mean.

    Args:
        gains: bits of each block, shape (blocks,), two blocks at least.
        characters: of each block, the same shape, all above zero.
        confidence: the probability within, between 0 and 1.
    """
    number, total = len(gains), float(characters.sum())
    gain = float(gains.sum()) / total
    error = math.sqrt(number * float(np.square(gains - gain * characters).sum()) / (number - 1)) / total
    reach = error * quantile((1 + confidence) / 2, number - 1)
    return gain - reach, gain + reach


def quantile(probability: float, freedom: int) -> float:
    """What Student's t with so many degrees of freedom stays below with this probability, 0.5 to below 1.

    By halving in θ = arctan(t / √freedom), in which the distribution has a closed form: Abramowitz and Stegun,
    "Handbook of Mathematical Functions" (1964), 26.7.3 and 26.7.4.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, freedom) < 2 * probability - 1 else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """The probability that |t| < √freedom · tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = cosine if odd else 1.0, 0.0
    for power in range(odd, freedom - 1, 2):  # 1 + cos²/2 + 1·3 cos⁴/(2·4) + …, or cos + 2 cos³/3 + 2·4 cos⁵/(3·5) + …
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
