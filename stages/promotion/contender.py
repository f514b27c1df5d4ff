"""A model and what it was made from, as the judge opens it: the text of its splits, and the bits that it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.errors import CorpusError, StoreError
from data.store.fingerprint import file_digest
from data.tables.borders import DOCUMENTS, Borders
from data.tables.ngrams import NGRAMS
from data.tables.tokens import IndexTable
from stages.lm.model import LanguageModel
from stages.promotion.passage import split, whole

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from pathlib import Path

    from data.tables.tokens import Ids
    from stages.promotion.passage import Passage

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Contender:
    """A model and what it was made from: three folders."""

    model: Path
    """Of `train`: ``model.safetensors``, ``config.json``, ``vocab.arrow``, maybe ``merges.arrow``."""
    tokens: Path
    """``tokens.arrow``, which the model was trained on, and which says where the splits lie."""
    corpus: Path
    """``corpus.txt``, from which the tokens were made, and which says what the ids of unknown tokens do not."""


class Side:
    """A contender, opened.

    Raises:
        StoreError: folders that are damaged or do not belong together.
    """

    def __init__(self, contender: Contender) -> None:
        self.model = LanguageModel.load(contender.model, finite=False)
        self.level = self.model.kind
        mixed = self.model.predictor is not self.model.network
        self.learnt = ("train", "valid") if mixed else ("train",)
        """The splits that it knows: an n-gram has counted what its share was chosen on."""
        self.weights = [
            file_digest(contender.model / name) for name in ("model.safetensors", *([NGRAMS] if mixed else []))
        ]
        """Digests of all that is in it."""
        self._table = IndexTable.open(contender.tokens / "tokens.arrow")
        self._corpus = contender.corpus / "corpus.txt"
        documents = contender.tokens / DOCUMENTS
        self._borders = Borders.read(documents) if documents.exists() else None
        if (self.model.level, self.model.normalizer) != (self._table.level, self._table.normalizer):
            raise StoreError(f"the model in {contender.model} was not trained on {contender.tokens}: train again")
        try:
            belongs = file_digest(self._corpus) == self._table.corpus_sha256
        except OSError as error:
            raise StoreError(f"{self._corpus} cannot be read ({error.strerror}): download again") from None
        if not belongs:
            raise StoreError(f"{self._corpus} is not the text that {contender.tokens} was made from: tokenize again")

    def which(self, name: str) -> Hashable:
        """What tells the text of a split from others, whoever has it."""
        order = self._borders.start.tobytes() if self._borders else None  # which documents, one after the other
        return self._table.corpus_sha256, self._table.level, self._table.splits[name], order

    def split(self, name: str, *, joined: bool) -> Iterator[Ids]:
        """The normalised text of a split, code points in pieces; ``joined``: one space for each run of white space."""

        def characters(ids: Ids) -> int:
            return int(self.model.vocab.characters.take(ids).sum())

        return split(self._corpus, self._table, name, self._borders, characters=characters, joined=joined)

    def other(self, path: Path, *, joined: bool) -> Iterator[Ids]:
        """All of another text, normalised as this model's was, in pieces, and as `split` gives its documents.

        Raises:
            CorpusError: a file that cannot be read, or is not UTF-8.
        """
        try:
            yield from whole(path, self.model.normalizer, self.model.level, joined=joined)
        except OSError as error:
            raise CorpusError(f"{path} cannot be read ({error.strerror}): name another reference") from None

    def bits(self, passage: Passage, blocks: NDArray[np.int32], number: int) -> Floats:
        """Bits that this model takes for each block, shape (number,).

        Args:
            passage: the text.
            blocks: the block of each character, or -1 where the character does not count; shape (characters,).
            number: of blocks.
        """
        reading = passage.read(self.level, self.model.vocab)
        sums = np.zeros(number)
        done = 1  # nothing predicts the first token
        for losses in self.model.predictor.losses(reading.ids):
            these = slice(done, done + len(losses))
            bits = losses.astype(np.float64) / math.log(2) + reading.cost[these]
            places, bits = reading.spread(these, bits)
            found = blocks[places]
            np.add.at(sums, found[found >= 0], bits[found >= 0])
            done = these.stop
        return sums
