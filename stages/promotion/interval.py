"""How far a gain on a text may be chance: Student's t over blocks of that text.

Neighbouring characters are not independent, and what sets two models apart goes on for long, the longer the less alike
they are: many short blocks take chance for merit. So there are few blocks, each as long as the text allows, and with so
few of them what they scatter by is itself uncertain, which Student's t accounts for. Yet five blocks of a short text
may agree by chance, and a gain would look surer than it is: so the blocks are cut into parts too, and what the parts
say of the uncertainty counts where it is more. The interval is about this text and these two models: not about another
text, nor another seed.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from stages.config import PromotionConfig

    Floats = NDArray[np.float64]


def blocks(characters: int, rule: PromotionConfig) -> tuple[int, int]:
    """How many blocks a text is cut into, and each of these into how many parts.

    There is a block for every ``rule.block_length`` characters, yet no fewer than ``rule.fewest_blocks`` and no more
    than ``rule.most_blocks``; of parts there are ``rule.most_blocks`` at least.
    """
    number = min(max(characters // rule.block_length, rule.fewest_blocks), rule.most_blocks)
    return number, -(-rule.most_blocks // number)


def cut(characters: int, parts: int) -> NDArray[np.int32]:
    """The part of each of these characters, shape (characters,): all of one length, but for a character."""
    numbers: NDArray[np.int32] = (np.arange(characters) * parts // max(characters, 1)).astype(np.int32)
    return numbers


def interval(gains: Floats, characters: Floats, confidence: float) -> tuple[float, float]:
    """The confidence interval of the gain per character of a text, from that of each part of each block.

    With r the gain of all per character, its ends are t standard errors from r: Student's t with a degree of freedom
    less than there are blocks, and the standard error of the blocks or of the parts, whichever is more.

    Args:
        gains: bits, shape (blocks, parts of a block), two blocks at least.
        characters: of each part, the same shape; each block has some.
        confidence: the probability within, between 0 and 1.
    """
    gain = float(gains.sum() / characters.sum())
    error = max(standard_error(gains.sum(1), characters.sum(1)), standard_error(gains.ravel(), characters.ravel()))
    reach = error * quantile((1 + confidence) / 2, len(gains) - 1)
    return gain - reach, gain + reach


def standard_error(gains: Floats, characters: Floats) -> float:
    """Of the gain per character, r = Σ g / Σ c over n pieces of gains g and characters c.

    It is √(n Σ (g - r c)² / (n - 1)) / Σ c, that of a ratio (Cochran, "Sampling Techniques", third edition, 1977,
    section 6.3, of an infinite population); where all pieces are of one length, that of a mean.
    """
    number, total = len(gains), float(characters.sum())
    strays = gains - gains.sum() / total * characters
    return math.sqrt(number * float(np.square(strays).sum()) / (number - 1)) / total


@cache
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
