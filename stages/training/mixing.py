"""What stands beside a network: an n-gram, counted before the training, and shares of both, chosen after it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from data.tables.ngrams import NGRAMS
from stages.lm import ensemble
from stages.lm.mixture import FEWEST, MOST, SHARE, Mixture, choose, halves
from stages.lm.ngram import NGram

if TYPE_CHECKING:
    from pathlib import Path

    from data.tables.tokens import IndexTable
    from stages.config import TrainConfig
    from stages.lm.parameters import Architecture, Parameters

logger = logging.getLogger(__name__)


class Mixing:
    """Of one training.

    Args:
        config: asks for an n-gram.
        table: what it is trained on.

    Raises:
        ConfigError: too many n-grams, which is said before anything is trained.
    """

    def __init__(self, config: TrainConfig, table: IndexTable) -> None:
        self._config, self._table = config, table
        counted, ends = table.ids[: table.splits["valid"].stop], table.ends
        self._ngram = NGram.fit(counted, table.vocab_size, config.ngram, ends=ends, min_count=config.ngram_min_count)

    def publish(self, architecture: Architecture, weights: Parameters, out: Path) -> dict[str, Any]:
        """Choose the shares on the validation split, each half of it with an n-gram that has not counted that half, and
        write the one that has counted both to ``ngrams.arrow``; what ``config.json`` says of it."""
        order, held_out = self._config.ngram, self._table.split("valid")
        mixture, shares = Mixture(ensemble.made(architecture, weights), self._ngram, [SHARE] * order), [SHARE] * order
        chosen_on = min(max(len(held_out) - 1, 0), MOST)
        if chosen_on >= FEWEST:
            shares = choose(halves(mixture, self._table.split("train"), held_out))
        else:
            chosen_on = 0
            logger.warning(
                "the validation split has %s tokens, too few to choose by how much the network counts for and the "
                "n-gram: both count alike (%s are enough: see tokenize.valid_share)",
                f"{len(held_out):,}",
                f"{FEWEST + 1:,}",
            )
        self._ngram.write(out / NGRAMS)
        return {"order": order, "shares": shares, "chosen_on": chosen_on}
