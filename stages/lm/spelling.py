"""What it costs to tell one unknown token from another, so that no vocabulary gains by what it leaves out.

A model says of an unknown token that it is ``<unk>``, and no more. Whoever wants the text back still needs to know
which one it was, so that is charged to bits per character, by plain codes that need nothing but the text's alphabet:

- an unknown character costs log2 K bits, with K the number of different unknown characters of the text; of letters, the
  shifts of which are always known, it is the small letter that is told;
- an unknown word of n characters costs (n + 1) · log2(A + 1) bits: spelled out, all A different characters of the text
  (but white space) and the end of the word being as likely.

No subword is unknown.

Loss and perplexity are per token, as the model has them, and hold nothing of this.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from data.corpus.letters import characters
from data.corpus.text import LINE_END, code_points

if TYPE_CHECKING:
    from data.corpus.level import Piece
    from data.tables.tokens import Ids


def of_character(kinds: int) -> float:
    """Bits of an unknown character; ``kinds`` is how many different ones the text has."""
    return math.log2(max(kinds, 1))


def of_letter(alphabet: int) -> float:
    """Bits of a character of an unknown word, and of its end; ``alphabet`` is how many different ones the text has."""
    return math.log2(alphabet + 1)


class Spelling:
    """A text that is read piece by piece: its characters, its unknown tokens, and what these cost.

    It holds as much as the text has different characters, whatever its length.

    Args:
        shifts: whether code points are those of letters and shifts (`data.corpus.letters`), and not of characters.
    """

    def __init__(self, *, shifts: bool = False) -> None:
        self._shifts = shifts
        self.tokens = 0
        self.characters = 0
        """Code points that the tokens stand for, one space or line end behind each word."""
        self.unknown = 0
        """How many of the tokens are ``<unk>``."""
        self._alphabet: set[int] = set()  # of all words, or of the unknown characters
        self._words = False
        self._spelled = 0  # what the unknown tokens take: each character, and the end of a word
        self._first = 0  # what the first of all tokens takes of that
        self._begins_with_end = False  # of a line
        self._ended = True  # a line, with the last word

    def add(self, piece: Piece, ids: Ids) -> None:
        """Read on: the next tokens, and their ids, 0 for what is unknown."""
        if not len(ids):
            return
        unknown = ids == 0
        count = int(np.count_nonzero(unknown))
        if isinstance(piece, np.ndarray):
            self.characters += int(np.count_nonzero(characters(piece))) if self._shifts else len(piece)
            self._spelled += count
            first = int(unknown[0])
            if count:
                self._alphabet.update(np.unique(piece[unknown]).tolist())
        else:
            import pyarrow.compute as pc

            self._words = True
            piece = piece.dictionary_encode()
            indices = piece.indices.to_numpy()
            occurrences = np.bincount(indices, minlength=len(piece.dictionary))
            lengths = pc.utf8_length(piece.dictionary).to_numpy() + 1
            self._spelled += int(lengths[indices[unknown]].sum())
            first = int(lengths[indices[0]]) * int(unknown[0])
            # A line end stands for the space behind the word before it; one after another is a character more.
            ends = pc.equal(piece.dictionary, LINE_END).to_numpy(zero_copy_only=False)
            self.characters += int(occurrences @ lengths) - 2 * int(occurrences @ ends)
            if not self.tokens:
                self._begins_with_end = bool(ends[indices[0]])
            if self._ended or ends.any():
                ends = np.concatenate(([self._ended], ends[indices]))
                self.characters += int(np.count_nonzero(ends[1:] & ends[:-1]))
                self._ended = bool(ends[-1])
            letters = "".join(itertools.compress(piece.dictionary.to_pylist(), occurrences))
            self._alphabet.update(np.flatnonzero(np.bincount(code_points(letters))).tolist())
        if not self.tokens:
            self._first = first
        self.tokens += len(ids)
        self.unknown += count

    def count(self, tokens: int, begun: int) -> None:
        """Read on so many tokens, none of which is unknown, in which so many characters have begun."""
        self.tokens += tokens
        self.characters += begun

    def extend(self, more: Spelling) -> None:
        """Read on what another one has read."""
        if not more.tokens:
            return
        if not self.tokens:
            self._first, self._begins_with_end, self._words = more._first, more._begins_with_end, more._words
        elif more._begins_with_end and not self._ended:
            self.characters -= 1  # it does not stand at the beginning
        self.tokens += more.tokens
        self.characters += more.characters
        self.unknown += more.unknown
        self._spelled += more._spelled
        self._alphabet |= more._alphabet
        self._ended = more._ended

    @property
    def bits(self) -> float:
        """What telling apart the unknown tokens costs, of all but the first token, which nothing predicts."""
        kinds = len(self._alphabet)
        return (self._spelled - self._first) * (of_letter(kinds) if self._words else of_character(kinds))
