"""What a suggestion has to know of a text: its length, its alphabet, and what counting makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.lm.ngram import NGram
from stages.lm.unigram import Unigram

if TYPE_CHECKING:
    from collections.abc import Callable

    from data.corpus.text import LevelName
    from data.tables.tokens import IndexTable

ORDERS: dict[LevelName, int] = {"char": 8, "letter": 8, "word": 4, "bpe": 5}
"""Of the n-gram, at least: of most texts longer ones say nothing more."""
LONGEST = 16
"""The longest n-grams that a model can have."""
_REPEATED = 2_000_000
"""Tokens of a text up to which longer ones are tried: they take up to 36 bytes for each token and order."""
_SHORT = 500_000
"""Characters of a text up to which n-grams are the longest there are as soon as ones two longer pay: beside a network
even those save something that save nothing alone."""
_COUNTED, _MEASURED = 500_000, 20_000
"""Tokens of the training split, its last ones, and of the validation split, its first ones, at most."""
_LEAST = 0.01
"""Share of the loss that an n-gram saves at least where what came before, or what came before that, says something of
what comes next, and, two tokens longer, where a text repeats itself."""
_LONGER = 0.003
"""Share of it that an n-gram saves at least which is two tokens longer, to be worth its memory."""


@dataclass(frozen=True)
class Text:
    """A text, as its index table has it."""

    level: LevelName
    tokens: int
    """Of all splits."""
    vocab_size: int
    hopeless: bool = False
    """Whether those before a token say nothing of it: a 3-gram is no better than how often each token comes."""
    order: int = 0
    """Of the n-gram, as long as that pays; 0 where that was not looked at."""
    repeats: bool = False
    """Whether it says much time and again, as logs do."""

    @classmethod
    def of(cls, table: IndexTable) -> Text:
        """What is known of a tokenized text, whatever its splits are."""
        learnt, held_out = table.split("train")[-_COUNTED:], table.split("valid")[:_MEASURED]
        # Close to each other, as the test split is to what a mixture has counted in the end.
        middle = len(held_out) // 2
        known, unseen = np.concatenate([learnt, held_out[:middle]]), held_out[middle:]

        def loss(order: int) -> float:
            return NGram.fit(known, table.vocab_size, order, ends=table.ends).loss(unseen)

        hopeless, order, repeats = table.vocab_size < 3, ORDERS[table.level], False  # `<unk>` and one more
        if len(unseen) > 1 and not hopeless:
            alone = Unigram.fit(known, table.vocab_size).loss(unseen[1:])
            hopeless = loss(3) > alone * (1 - _LEAST)
            if len(table.ids) <= _REPEATED:
                order, repeats = _enough(loss, order)
                if table.level in ("char", "letter") and order > ORDERS["char"] and len(table.ids) <= _SHORT:
                    order = LONGEST
        return cls(table.level, len(table.ids), table.vocab_size, hopeless, order, repeats)


def _enough(loss: Callable[[int], float], order: int) -> tuple[int, bool]:
    """Two tokens longer as long as that saves enough, and whether the first two save much."""
    losses = [loss(order), loss(order + 2)]
    while losses[-1] < losses[-2] * (1 - _LONGER):
        order += 2
        if order + 2 > LONGEST:
            break
        losses.append(loss(order + 2))
    return order, losses[1] < losses[0] * (1 - _LEAST)
