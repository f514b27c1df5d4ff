"""Which merges a text asks for: they are learnt from its pieces by the library `tokenizers`."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data.corpus import subwords

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST = 1 << 27
"""Bytes of pieces that merges are learnt from, at most. The library counts pieces one by one, 7 MB/s of them on an old
core, and in 32 bits: of a text that has more, each piece's count is divided by the same whole number, rounded down."""
FEWEST = 2
"""Times that a pair has to stand there: what stands there once would be learnt by heart."""
_ALONE = "TOKENIZERS_PARALLELISM"
_TOGETHER = 1 << 16
"""Characters that are handed over at once."""


def learn(counts: Mapping[str, int], size: int, least: int = 0) -> list[tuple[str, str]]:
    """The merges of a text, the first ones first: time and again the two neighbours that stand there most often.

    They follow from the counts alone: of pairs that stand there equally often that comes first whose tokens did.

    Args:
        counts: of the pieces (`data.corpus.subwords`) of a text.
        size: tokens that all bytes and the merges make together, at most.
        least: times that a pair has to stand there, where that is more than `FEWEST`.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    total = sum(len(piece.encode()) * count for piece, count in counts.items())
    share = max(-(-total // MOST), 1)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=max(-(-max(least, FEWEST) // share), 1),
        show_progress=False,
        initial_alphabet=[*subwords.LETTERS],
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")  # which is no letter of a byte
    with _one_thread():
        tokenizer.train_from_iterator(_repeated(counts, share), trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def _repeated(counts: Mapping[str, int], share: int) -> Iterator[str]:
    """Each piece as often as it stands there, for that is how the library counts, with a space between two."""
    held, length = list[str](), 0
    for piece, count in counts.items():
        token, times = subwords.written(piece) + " ", count // share
        while times:
            at_once = min(times, max(_TOGETHER // len(token), 1))
            held.append(token * at_once)
            times -= at_once
            length += len(token) * at_once
            if length >= _TOGETHER:
                yield "".join(held)
                held, length = [], 0
    yield "".join(held)


@contextmanager
def _one_thread() -> Iterator[None]:
    """No threads of the library's: they gain little here, and it warns of each process that is forked after them."""
    before = os.environ.get(_ALONE)
    os.environ[_ALONE] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ALONE]
        else:
            os.environ[_ALONE] = before
