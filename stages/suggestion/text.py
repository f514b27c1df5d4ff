"""What a suggestion has to know of a text: its length, its alphabet, and what counting makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.lm.ngram import NGram
from stages.lm.unigram import Unigram

if TYPE_CHECKING:
    from data.corpus.text import LevelName
    from data.tables.tokens import IndexTable

_COUNTED, _MEASURED = 500_000, 20_000
"""Tokens of the training split, its last ones, and of the validation split, its first ones, at most."""
_LEAST = 0.01
"""Share of the loss that an n-gram saves at least where what came before says something of what comes next."""


@dataclass(frozen=True)
class Text:
    """A text, as its index table has it."""

    level: LevelName
    tokens: int
    """Of all splits."""
    vocab_size: int
    hopeless: bool = False
    """Whether those before a token say nothing of it: a 3-gram is no better than how often each token comes."""

    @classmethod
    def of(cls, table: IndexTable) -> Text:
        """What is known of a tokenized text, whatever its splits are."""
        learnt, held_out = table.split("train")[-_COUNTED:], table.split("valid")[:_MEASURED]
        hopeless = table.vocab_size < 3  # `<unk>` and one more
        if len(held_out) > 1 and not hopeless:
            alone = Unigram.fit(learnt, table.vocab_size).loss(held_out[1:])
            after = NGram.fit(learnt, table.vocab_size, 3, ends=table.ends).loss(held_out)
            hopeless = after > alone * (1 - _LEAST)
        return cls(table.level, len(table.ids), table.vocab_size, hopeless)
