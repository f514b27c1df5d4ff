"""What a token is: a character, a letter or its shift, a word, or a subword. All that differs between them is here."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from data.corpus import letters, subwords, text
from data.corpus.words import words

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from data.tables.merges import Merges
    from data.tables.vocab import Vocab

    Piece: TypeAlias = NDArray[np.unsignedinteger] | pa.StringArray | pa.DictionaryArray
    """Tokens of a normalised text, cut anywhere between two: code points of shape (tokens,), or strings."""

_LETTERS = frozenset(subwords.LETTERS)
_LINE_ENDS = text.LINE_END, text.END
_NEWLINE = subwords.written("\n")
"""What a line ends with, of words and of subwords."""
Beside = TypeVar("Beside")
"""What comes with a token and stays with what that adds."""


@dataclass(frozen=True)
class Level:
    """One kind of token, and how a normalised text becomes tokens and text again.

    Subwords are those of a vocabulary (see `of`). Without one, and until a text has told its merges, a token is a piece
    of the text that they do not reach across (`data.corpus.subwords`).
    """

    name: text.LevelName
    noun: str
    """What one token is called: ``character``, ``letter``, ``word`` or ``subword``."""
    separator: str = ""
    """What stands between two tokens of a text: nothing, or one space."""
    merges: Merges | None = None
    """Of subwords: what makes them."""
    ends: bool = False
    """Whether a vocabulary has what ends a document; where none has, `added` does not look for it in characters."""

    @property
    def merged(self) -> bool:
        """Whether tokens are subwords, each a string of bytes, written with `data.corpus.subwords.LETTERS`."""
        return self.name == "bpe"

    @property
    def coded(self) -> bool:
        """Whether a token is a code point."""
        return not self.separator and not self.merged

    @property
    def spelt(self) -> bool:
        """Whether tokens are small letters and shifts, which say what is a capital (`data.corpus.letters`)."""
        return self.name == "letter"

    @property
    def partial(self) -> bool:
        """Whether a token may be less than a character, so that these are counted apart."""
        return self.merged or self.spelt

    def of(self, vocab: Vocab) -> Level:
        """The same with the subwords of a vocabulary, and the ends of documents if it has them."""
        return replace(self, merges=vocab.merges, ends=vocab.ends)

    def has(self, token: str) -> bool:
        """Whether a text can have such a token."""
        if self.spelt and token in letters.SHIFTS:
            return True
        return _LETTERS.issuperset(token) if self.merged else self.split(token) == [token]

    def split(self, line: str) -> list[str]:
        """The tokens of a short text."""
        if self.separator:
            return line.split()
        if not self.merged:
            return list(letters.spelt(line) if self.spelt else line)
        pieces = subwords.split(line)
        return [token for piece in pieces for token in self.merges.split(piece)] if self.merges else pieces

    def join(self, tokens: Iterable[str], after: str = "") -> str:
        """The text of tokens, behind what comes before them. Here and below a line ends where a document does."""
        if not self.separator and not self.merges and not self.spelt:
            return "".join("\n" if token == text.END else token for token in tokens)
        return "".join(added for added, _ in self.added(zip(tokens, repeat(None)), after=after))

    def texts(self, pieces: Iterable[Iterable[str]]) -> Iterator[str]:
        """The text of tokens that come in pieces, a piece at a time."""
        if self.spelt:
            come = letters.Told()
            return ("".join(_come(come, token) for token in piece) for piece in pieces)
        if not self.merges:
            return (self.join(piece) + self.separator for piece in pieces)
        decoder = _decoder()
        # No subword has the space within the end of a document.
        written = ("".join(piece).replace(text.END, _NEWLINE) for piece in pieces)
        return (decoder.decode(subwords.raw(piece)) for piece in written)

    def added(self, tokens: Iterable[tuple[str, Beside]], *, after: str = "") -> Iterator[tuple[str, Beside]]:
        """What each token adds to a text, and what comes beside it.

        A subword that ends within a character waits for the next one, and adds what it has completed; at the end what
        no character can be made of is U+FFFD. A shift adds nothing.

        Args:
            tokens: one after the other, each with what comes beside it.
            after: what comes before them, as `after` has it; empty where the text begins.
        """
        if self.merges:
            return _decoded(tokens)
        if self.separator:
            return _spaced(tokens, after, self.separator)
        if self.spelt:
            come = letters.Told(after)
            return ((_come(come, token), beside) for token, beside in tokens)
        if not self.ends:
            return iter(tokens)
        return (("\n" if token == text.END else token, beside) for token, beside in tokens)

    def after(self, tokens: Sequence[str], before: str = "") -> str:
        """What of some tokens, behind those that ``before`` stands for, says how the next one is written: the last
        token, and of letters the beginning of a word."""
        if not self.spelt:
            return tokens[-1] if tokens else before
        return letters.after("".join([before, *tokens]))

    def says(self, tokens: Iterable[str], strings: Iterable[str], after: str = "") -> bool:
        """Whether one of several strings stands in the text of tokens; of subwords, which may begin within a character,
        only where its own bytes do. Letters are those that come behind ``after``."""
        told = "".join(tokens) if self.merged else self.join(tokens, after if self.spelt else "")
        return any((subwords.written(string) if self.merged else string) in told for string in strings)

    def pieces(self, chunks: Iterable[str]) -> Iterator[Piece]:
        """The tokens of a text in chunks, as arrays.

        Raises:
            CorpusError: a text for words that has none to speak of.
        """
        if self.separator:
            return words(chunks)
        if not self.merged:
            return map(text.code_points, letters.spell(chunks) if self.spelt else chunks)
        pieces = subwords.pieces(chunks)
        return (self.merges.tokens(piece)[0] for piece in pieces) if self.merges else pieces

    def array(self, tokens: list[str]) -> Piece:
        """Tokens of a text as one of its ``pieces``."""
        if self.coded:
            return text.code_points("".join(tokens))

        import pyarrow as pa

        return pa.array(tokens, pa.string())

    def tokens(self, chunks: Iterable[str]) -> Iterator[list[str]]:
        """The same as lists of strings."""
        if self.coded:
            return map(list, letters.spell(chunks) if self.spelt else chunks)
        pieces: Iterator[Any] = self.pieces(chunks)
        return (piece.dictionary_decode().to_pylist() for piece in pieces)


def _come(come: letters.Told, token: str) -> str:
    return come.add("\n" if token == text.END else token)


def _spaced(tokens: Iterable[tuple[str, Beside]], after: str, separator: str) -> Iterator[tuple[str, Beside]]:
    for token, beside in tokens:
        if token in _LINE_ENDS:
            yield "\n", beside
        else:
            yield token if after in ("", *_LINE_ENDS) else separator + token, beside
        after = token


def _decoded(tokens: Iterable[tuple[str, Beside]]) -> Iterator[tuple[str, Beside]]:
    decoder = _decoder()
    waiting: list[tuple[str, Beside]] = []
    for token, beside in tokens:
        yield from waiting
        waiting.clear()
        added = decoder.decode(subwords.raw(_NEWLINE if token == text.END else token)), beside
        if decoder.getstate()[0]:
            waiting.append(added)
        else:
            yield added
    for text_so_far, beside in waiting:
        yield text_so_far + decoder.decode(b"", final=True), beside


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


CHAR = Level("char", "character")
LETTER = Level("letter", "letter")
WORD = Level("word", "word", " ")
BPE = Level("bpe", "subword")
LEVELS: dict[str, Level] = {level.name: level for level in (CHAR, LETTER, WORD, BPE)}
"""By the names that the configuration, ``tokens.arrow`` and ``config.json`` have."""
