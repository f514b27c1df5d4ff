"""Text at rest, read in chunks: line ends and normalisers. Where a text is cut into chunks never shows."""

from __future__ import annotations

import codecs
import io
import re
import string
import sys
import unicodedata
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from data.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from data.corpus.parts import Part, Span

LevelName = Literal["char", "letter", "word", "bpe"]
Normalizer: TypeAlias = str
"""What a text is normalised by, as one of `NORMALIZERS`: a rule of `normalize`, and what comes beside it, ``+nfc`` for
composed accents and ``+lines`` for line ends as words."""
RULES = ("book", "lower", "none")
NORMALIZERS = tuple(rule + nfc + lines for rule in RULES for nfc in ("", "+nfc") for lines in ("", "+lines"))

LINE_END = "↵"
"""The word that stands for a line end, where line ends are words."""
END = "<end of document>"
"""The token that stands behind each of several documents. No text has it: it is no character, and neither a word nor a
subword has a space within."""

CHUNK = 1 << 18
"""Bytes per chunk: large enough for NumPy, small enough for the processor's cache."""
ARENA = 1 << 24
"""Bytes: the C library that has freed a block as large as this asks the system no more for each one that is smaller,
such as an array as long as a chunk. A page that is new with every chunk costs as much as what is done to it."""
MOST_MARKS = 1000
"""Upon one character: they are put into an order one by one, which takes a time that grows with the square of them."""
SPACE, NEWLINE = b" ", b"\n"
NO_BYTE = b"\xff"
"""No text in UTF-8 holds it."""
_SEPARATORS = bytes(code for code in range(256) if chr(code) not in string.ascii_letters)
"""All bytes that are no letters of the book's."""


def read(path: Path, size: int = CHUNK, *, part: Part | None = None) -> Iterator[str]:
    """The text of a UTF-8 file, one chunk for each ``size`` bytes: without byte order mark, every line end a newline.

    Args:
        path: the file.
        size: of a chunk, bytes.
        part: read this part of the file only.

    Raises:
        CorpusError: bytes that are not UTF-8.
    """
    start, stop = (part.start, part.stop) if part else (0, sys.maxsize)
    np.empty(ARENA, np.uint8)  # and freed at once
    with path.open("rb") as file:
        yield from _decoded(file, start, stop, size)


def documents(path: Path, spans: Iterable[Span], size: int = CHUNK) -> Iterator[Iterator[str]]:
    """Each of several documents in a file, read as ``read`` reads a whole one, before the next one is asked for."""
    np.empty(ARENA, np.uint8)
    with path.open("rb") as file:
        for start, length in spans:
            yield _decoded(file, start, start + length, size)


def _decoded(file: BinaryIO, start: int, stop: int, size: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8" if start else "utf-8-sig")()
    newlines = io.IncrementalNewlineDecoder(decoder, translate=True)
    file.seek(start)
    try:
        while data := file.read(min(size, stop - file.tell())):
            yield newlines.decode(data)
        yield newlines.decode(b"", final=True)
    except UnicodeDecodeError as error:
        position = file.tell() - len(error.object) + error.start
        raise CorpusError(f"{file.name} is not UTF-8 text (see byte {position:,}): convert it to UTF-8 first") from None


def normalizer(rule: str, *, nfc: bool, line_ends: bool) -> Normalizer:
    """A rule and what comes beside it, as one value."""
    return rule + "+nfc" * nfc + "+lines" * line_ends


def normalize(chunks: Iterable[str], normalizer: Normalizer, level: LevelName) -> Iterator[str]:
    """The normalised text in chunks; any cut points give the same text.

    ``book`` is the rule of the chapter, ``re.sub("[^A-Za-z]+", " ", line).strip().lower()`` for each line. Its lines
    are joined with nothing for characters, as in the book, and with a space for words; for subwords one stands before
    each line, the first too, so that every word begins with it.
    ``lower`` lowercases every character by itself: a capital sigma becomes σ wherever it stands.
    Before the rule ``+nfc`` composes accents (Unicode's form NFC); after it ``+lines`` makes line ends a `LINE_END`.

    Raises:
        CorpusError: a text to be composed that has no end of accents upon one character.
    """
    rule, *beside = normalizer.split("+")
    if "nfc" in beside:
        chunks = _composed(chunks)
    if rule == "book":
        chunks = _book(chunks, NEWLINE if level == "char" else NO_BYTE, SPACE if level == "bpe" else b"")
    elif rule == "lower":
        chunks = map(_lower, chunks)
    yield from map(_line_ends, chunks) if "lines" in beside else chunks


def normalize_prefix(text: str, normalizer: Normalizer, level: LevelName) -> str:
    """A prompt in the spelling of a normalised text; spaces at its ends stay, for they are part of what it says."""
    rule, *beside = normalizer.split("+")
    if "nfc" in beside:
        text = unicodedata.normalize("NFC", text)
    if rule == "book":
        text = re.sub("[^A-Za-z]+", " ", text).lower()
        if level == "bpe" and text:
            text = " " + text.removeprefix(" ")
    elif rule == "lower":
        text = _lower(text)
    return _line_ends(text) if "lines" in beside else text


def spellings(text: str, normalizer: Normalizer, level: LevelName) -> list[str]:
    """A prompt, normalised, as it stands, with its accents composed, and with them apart: texts differ in that."""
    forms = [text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)]
    return [normalize_prefix(form, normalizer, level) for form in forms]


def code_points(text: str) -> NDArray[np.unsignedinteger]:
    """The text's characters as numbers, uint8 or uint32 of shape (characters,)."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4"))


def _line_ends(text: str) -> str:
    return text.replace("\n", f" {LINE_END} ")


def _composed(chunks: Iterable[str]) -> Iterator[str]:
    """The text in Unicode's form NFC; its last character, with all that belongs to it, waits for what follows."""
    waiting = ""
    for chunk in chunks:
        text = waiting + chunk
        if not text.isascii() and _stacked(text):
            raise CorpusError(
                f"the text has a character with more than {MOST_MARKS:,} marks upon it, too many to compose: "
                "set tokenize.nfc=false, or take them out"
            )
        last = next((at for at in range(len(text) - 1, max(len(waiting) - 1, 0), -1) if _begins(text[at])), 0)
        yield unicodedata.normalize("NFC", text[:last])
        waiting = text[last:]
    yield unicodedata.normalize("NFC", waiting)


def _stacked(text: str) -> bool:
    """Whether more than `MOST_MARKS` characters stand upon one: then one of them stands at a multiple of that."""
    return any(
        _marks(text[at : at + MOST_MARKS]) + _marks(text[at - MOST_MARKS : at][::-1]) > MOST_MARKS
        for at in range(MOST_MARKS, len(text), MOST_MARKS)
        if not _begins(text[at])
    )


def _marks(text: str) -> int:
    """How many characters a text begins with that belong to what comes before it."""
    return next((at for at, character in enumerate(text) if _begins(character)), len(text))


def _begins(character: str) -> bool:
    """Whether a character is never composed with what comes before it: it is no mark, and not within a syllable."""
    if character < "\u0300":
        return True
    return unicodedata.category(character)[0] != "M" and not "\u1160" <= character <= "\u11ff"


def _lower(text: str) -> str:
    # str.lower looks around a capital sigma, at letters that may lie in another chunk.
    return text.replace("Σ", "σ").lower()


def _book(chunks: Iterable[str], line_end: bytes, before: bytes) -> Iterator[str]:
    """Each run of separators becomes one space, or nothing when it holds a line end or stands at an end of the text.

    The run at the end of a chunk waits for the next one as a single byte. The text begins behind a line end, unless
    something else stands before it.
    """
    waiting = before or line_end
    for chunk in chunks:
        content = waiting + chunk.encode("utf-8", "surrogatepass")
        kept = content.rstrip(_SEPARATORS)
        run = content[len(kept) :]
        waiting = b"" if not run else line_end if line_end in run else SPACE
        if kept:
            yield _squeezed(kept, line_end).decode("ascii")


def _squeezed(content: bytes, line_end: bytes) -> bytes:
    """A text that ends with a letter, by the book's rule."""
    codes = np.frombuffer(content, np.uint8)
    lower = codes | np.uint8(0x20)  # of a letter; what else there is stays something else
    is_letter = (lower - np.uint8(ord("a"))) < len(string.ascii_lowercase)
    is_line_end = codes == line_end[0]
    # Of a run its last separator stays, as a space; but a line end there stays not, and one within the run stays too.
    spaces = (is_letter[:-1] < is_letter[1:]) > is_line_end[:-1]
    breaks = is_line_end[:-1] > (is_letter | is_line_end)[1:]
    lower *= is_letter.view(np.uint8)
    lower[:-1] |= spaces.view(np.uint8) * np.uint8(SPACE[0])
    lower[:-1] |= breaks.view(np.uint8) * np.uint8(NEWLINE[0])
    text = lower.tobytes().replace(b"\0", b"")
    if NEWLINE not in text:
        return text
    first, *others = text.split(NEWLINE)
    return first + b"".join(other.removeprefix(SPACE) for other in others)
