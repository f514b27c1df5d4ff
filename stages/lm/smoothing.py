"""What is taken off the counts of n-grams, and what is then left to whom: modified Kneser-Ney smoothing, interpolated.

With h the n - 1 tokens before w, and h' those but the first:

    p(w | h) = (c(hw) - D(c(hw))) / c(h·) + Σ D(c(h·)) / c(h·) · p(w | h'),

and p(w | h) = p(w | h') where h never came. c counts occurrences in the highest order, and below it the different
tokens that n-grams follow; below the first order stands the uniform distribution. D is D₁, D₂ or D₃ for counts of 1, 2
and more: D_j = j - (j + 1) Y n_{j+1} / n_j with Y = n₁ / (n₁ + 2 n₂) and n_j the n-grams of that order that are counted
j times. Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (Harvard TR-10-98, 1998).

What n-grams counted that were left out goes to p(w | h'), too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from data.tables.ngrams import NGrams

_FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where the counts are too few to estimate them: those that KenLM falls back to."""


def discounts(counts: npt.NDArray[np.integer[Any]]) -> tuple[float, float, float]:
    """What is taken off a count of 1, of 2, and of 3 or more; the counts are those of all n-grams of an order."""
    seen = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if all(seen):
        y = seen[0] / (seen[0] + 2 * seen[1])
        one, two, more = (j - (j + 1) * y * seen[j] / seen[j - 1] for j in (1, 2, 3))
        if min(one, two, more) > 0:
            return one, two, more
    return _FALLBACK


class Smoothed:
    """The parts of probabilities, by the number of an n-gram; at 0 for the empty context, at -1 for what never came."""

    def __init__(self, table: NGrams) -> None:
        total, numbers = len(table.key), len(table.key) - table.sizes[-1] + 2  # of what may be a context
        self.own = np.zeros(total + 2)
        """What an n-gram's own count gives it: (c(hw) - D(c(hw))) / c(h·)."""
        self.rest = np.ones(numbers)
        """What it leaves, as a context, to the next shorter one: Σ D(c(h·)) / c(h·)."""
        self.starts = np.zeros(numbers, np.int32)
        """The row of the first n-gram that begins with it; before that of the next number they end."""
        contexts = slice(0, 1)
        for rows, of_order in zip(table.lengths(), table.discounts, strict=True):
            counts, size = table.count[rows], contexts.stop - contexts.start
            context = table.key[rows] // table.vocab_size
            context -= contexts.start
            taken = np.array((0.0, *of_order))[np.minimum(counts, 3)]
            left = table.left[contexts.start - 1 : contexts.stop - 1] if contexts.start else 0
            totals, rest = (np.bincount(context, some, size) + left for some in (counts, taken))
            # A context that stands at the beginning of the text alone is followed by n-grams that follow nothing.
            followed = totals > 0
            totals[~followed] = rest[~followed] = 1
            self.rest[contexts] = rest / totals
            stops = np.bincount(context, minlength=size).cumsum()
            self.starts[contexts.start + 1 : contexts.stop + 1] = rows.start + stops
            contexts = slice(rows.start + 1, rows.stop + 1)
            np.subtract(counts, taken, out=taken)
            taken /= totals[context]
            self.own[contexts] = taken
