"""What a token is: a character, or a word between white space. All that differs between the two stands here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from data.corpus import text
from data.corpus.words import words

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Piece: TypeAlias = NDArray[np.unsignedinteger] | pa.StringArray | pa.DictionaryArray
    """Tokens of a normalised text, cut anywhere between two: code points of shape (tokens,), or words."""


@dataclass(frozen=True)
class Level:
    """One kind of token, and how a normalised text becomes tokens and text again."""

    name: text.LevelName
    noun: str
    """What one token is called: ``character`` or ``word``."""
    separator: str
    """What stands between two tokens of a text: nothing, or one space."""

    def split(self, line: str) -> list[str]:
        """The tokens of a short text."""
        return line.split() if self.separator else list(line)

    def join(self, tokens: Iterable[str]) -> str:
        """The text of tokens."""
        if not self.separator:
            return "".join(tokens)
        tokens = list(tokens)
        return "".join(map(self.adds, tokens, ["", *tokens]))

    def adds(self, token: str, after: str) -> str:
        """What a token adds to a text that ends with the token ``after``, empty where the text begins."""
        if not self.separator:
            return token
        if token == text.LINE_END:
            return "\n"
        return token if after in ("", text.LINE_END) else self.separator + token

    def pieces(self, chunks: Iterable[str]) -> Iterator[Piece]:
        """The tokens of a text in chunks, as arrays.

        Raises:
            CorpusError: a text for words that has none to speak of.
        """
        return words(chunks) if self.separator else map(text.code_points, chunks)

    def array(self, tokens: list[str]) -> Piece:
        """Tokens of a text as one of its ``pieces``."""
        if not self.separator:
            return text.code_points("".join(tokens))

        import pyarrow as pa

        return pa.array(tokens, pa.string())

    def tokens(self, chunks: Iterable[str]) -> Iterator[list[str]]:
        """The same as lists of strings."""
        if self.separator:
            return (piece.dictionary_decode().to_pylist() for piece in words(chunks))
        return map(list, chunks)


CHAR = Level("char", "character", "")
WORD = Level("word", "word", " ")
LEVELS: dict[str, Level] = {level.name: level for level in (CHAR, WORD)}
"""By the names that the configuration, ``tokens.arrow`` and ``config.json`` have."""
