"""The baselines of a corpus: what its splits cost someone who knows nothing of it, or has counted its training split.

They depend on the index table alone, so they are an artifact of their own that every model's evaluation reads.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from data.tables.tokens import SPLITS, IndexTable
from stages.lm.ngram import ORDER, NGram
from stages.lm.unigram import Unigram, uniform_loss

if TYPE_CHECKING:
    from pathlib import Path

    from data.progress import Progress
    from stages.config import StageConfig

MOST_FITTED = 10_000_000
"""Tokens at most that n-grams are counted on, the last of the training split: a bound on the memory, which is 0.2 GB
then for characters and up to 1.4 GB for words, whose n-grams hardly ever come twice."""


def baselines(config: StageConfig, *, tokens: Path, out: Path, progress: Progress) -> None:
    """Write ``baselines.json``: mean losses of all tokens of each split but its first, nats per token.

    Of a long training split they are those of its end (`IndexTable.measured`), as a model's are.

    ``{"losses": {"uniform": {"train": loss, …}, "unigram": …, "5gram": …}, "fitted_on": tokens}``; the loss of a split
    of fewer than two tokens is null; ``fitted_on`` are the training tokens that the 5-gram was counted on.

    Args:
        config: empty, for there is nothing to choose.
        tokens: the folder of `tokenize`: ``tokens.arrow``.
        out: an empty folder.
        progress: called with tokens measured.

    Raises:
        StoreError: an index table that cannot be read.
    """
    table = IndexTable.open(tokens / "tokens.arrow")
    fitted = table.split("train")[-MOST_FITTED:]
    measured = {name: table.measured(name) for name in SPLITS}
    total, before = sum(map(len, measured.values())), 0
    progress(0, total, "counting for the baselines")
    unigram = Unigram.fit(table.split("train"), table.vocab_size)
    ngram = NGram.fit(fitted, table.vocab_size)
    losses: dict[str, dict[str, float | None]] = {"uniform": {}, "unigram": {}, f"{ORDER}gram": {}}
    for name, split in measured.items():
        ids = table.ids[split.start : split.stop]
        nats, done, long_enough = 0.0, 0, len(ids) > 1
        for chunk in ngram.losses(ids):
            nats, done = nats + float(chunk.sum()), done + len(chunk)
            progress(before + done, total, f"baselines on the {name} split")
        losses["uniform"][name] = uniform_loss(table.vocab_size) if long_enough else None
        losses["unigram"][name] = unigram.loss(ids[1:]) if long_enough else None
        losses[f"{ORDER}gram"][name] = nats / done if long_enough else None
        before += len(ids)
    result = {"losses": losses, "fitted_on": len(fitted)}
    (out / "baselines.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
