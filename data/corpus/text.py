"""Text at rest, read in chunks: line ends, normalisers, words. Where a text is cut into chunks never shows."""

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

    import pyarrow as pa
    from numpy.typing import NDArray

    from data.corpus.parts import Part

LevelName = Literal["char", "word"]
Normalizer: TypeAlias = str
"""What a text is normalised by, as one of `NORMALIZERS`: a rule of `normalize`, and what comes beside it, ``+nfc`` for
composed accents and ``+lines`` for line ends as words."""
RULES = ("book", "lower", "none")
NORMALIZERS = tuple(rule + nfc + lines for rule in RULES for nfc in ("", "+nfc") for lines in ("", "+lines"))

LINE_END = "↵"
"""The word that stands for a line end, where line ends are words."""

CHUNK = 1 << 18
"""Bytes per chunk: large enough for NumPy, small enough for the processor's cache."""
LONGEST_WORD = 1_000_000
"""Characters without white space after which a text is not a text of words."""

SPACE, NEWLINE = b" ", b"\n"
NO_BYTE = b"\xff"
"""No text in UTF-8 holds it."""
_WHITE = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
_ASCII_WHITE = "".join(filter(str.isascii, _WHITE)).encode()
_OTHER_WHITE = "".join(space for space in _WHITE if not space.isascii())
_TO_SPACES = bytes.maketrans(_ASCII_WHITE, SPACE * len(_ASCII_WHITE))
_LETTERS = bytes(code if chr(code) in string.ascii_lowercase else SPACE[0] for code in range(256))
"""A byte in lowercase → the same letter, or a space."""


def read(path: Path, size: int = CHUNK, *, part: Part | None = None) -> Iterator[str]:
    """The text of a UTF-8 file, one chunk for each ``size`` bytes: without byte order mark, every line end a newline.

    Args:
        path: the file.
        size: of a chunk, bytes.
        part: read this part of the file only.

    Raises:
        CorpusError: bytes that are not UTF-8.
    """
    start, stop = part or (0, sys.maxsize)
    decoder = codecs.getincrementaldecoder("utf-8" if start else "utf-8-sig")()
    newlines = io.IncrementalNewlineDecoder(decoder, translate=True)
    with path.open("rb") as file:
        file.seek(start)
        try:
            while data := file.read(min(size, stop - file.tell())):
                yield newlines.decode(data)
            yield newlines.decode(b"", final=True)
        except UnicodeDecodeError as error:
            position = file.tell() - len(error.object) + error.start
            raise CorpusError(f"{path} is not UTF-8 text (see byte {position:,}): convert it to UTF-8 first") from None


def normalizer(rule: str, *, nfc: bool, line_ends: bool) -> Normalizer:
    """A rule and what comes beside it, as one value."""
    return rule + "+nfc" * nfc + "+lines" * line_ends


def normalize(chunks: Iterable[str], normalizer: Normalizer, level: LevelName) -> Iterator[str]:
    """The normalised text in chunks; any cut points give the same text.

    ``book`` is the rule of the chapter, ``re.sub("[^A-Za-z]+", " ", line).strip().lower()`` for each line. Its lines
    are joined with nothing for characters, as in the book, and with a space for words.
    ``lower`` lowercases every character by itself: a capital sigma becomes σ wherever it stands.
    Before the rule ``+nfc`` composes accents (Unicode's form NFC); after it ``+lines`` makes line ends a `LINE_END`.
    """
    rule, *beside = normalizer.split("+")
    if "nfc" in beside:
        chunks = _composed(chunks)
    if rule == "book":
        chunks = _book(chunks, NO_BYTE if level == "word" else NEWLINE)
    elif rule == "lower":
        chunks = map(_lower, chunks)
    yield from map(_line_ends, chunks) if "lines" in beside else chunks


def normalize_prefix(text: str, normalizer: Normalizer) -> str:
    """A prompt in the spelling of a normalised text; spaces at its ends stay, for they are part of what it says."""
    rule, *beside = normalizer.split("+")
    if "nfc" in beside:
        text = unicodedata.normalize("NFC", text)
    if rule == "book":
        text = re.sub("[^A-Za-z]+", " ", text).lower()
    elif rule == "lower":
        text = _lower(text)
    return _line_ends(text) if "lines" in beside else text


def spellings(text: str, normalizer: Normalizer) -> list[str]:
    """A prompt, normalised, as it stands, with its accents composed, and with them apart: texts differ in that."""
    forms = [text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)]
    return [normalize_prefix(form, normalizer) for form in forms]


def words(chunks: Iterable[str]) -> Iterator[pa.StringArray]:
    """What stands between white space, as ``str.split`` has it: one array of words for each chunk that ends some.

    Raises:
        CorpusError: more than ``LONGEST_WORD`` characters without white space.
    """
    return filter(len, map(_split, _uncut(chunks)))


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
        last = next((at for at in range(len(text) - 1, max(len(waiting) - 1, 0), -1) if _begins(text[at])), 0)
        yield unicodedata.normalize("NFC", text[:last])
        waiting = text[last:]
    yield unicodedata.normalize("NFC", waiting)


def _begins(character: str) -> bool:
    """Whether a character is never composed with what comes before it: it is no mark, and no part of a syllable."""
    if character < "\u0300":
        return True
    return unicodedata.category(character)[0] != "M" and not "\u1100" <= character <= "\u11ff"


def _lower(text: str) -> str:
    # str.lower looks around a capital sigma, at letters that may lie in another chunk.
    return text.replace("Σ", "σ").lower()


def _book(chunks: Iterable[str], line_end: bytes) -> Iterator[str]:
    """Each run of separators becomes one space, or nothing when it holds a line end or stands at an end of the text.

    The run at the end of a chunk waits for the next one as a single byte. The text begins behind a line end.

    Where a run ends, and whether it holds a line end, is the work of two integers with a bit per byte, the first on the
    right: what is added to a run of ones carries to the bit behind it.
    """
    waiting = line_end
    for chunk in chunks:
        codes = np.frombuffer(waiting + chunk.encode("utf-8", "surrogatepass"), np.uint8)
        lower = codes | np.uint8(0x20)  # of a letter; what else there is stays something else, and is no 0
        letters = (lower - np.uint8(ord("a"))) < len(string.ascii_lowercase)
        runs = _integer(~letters)
        behind = (runs << 1) & ~runs & ~(runs + _integer(codes == line_end[0]))
        waiting = b""
        if len(codes) and not letters[-1]:
            waiting = SPACE if behind >> len(codes) else line_end
            behind &= (1 << len(codes)) - 1
        kept = letters.view(np.uint8) | _bits(behind >> 1, len(codes))
        yield (lower * kept).tobytes().translate(_LETTERS, b"\0").decode("ascii")


def _integer(bits: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")


def _bits(integer: int, count: int) -> NDArray[np.uint8]:
    packed = integer.to_bytes(-(-count // 8), "little")
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count, bitorder="little")


def _uncut(chunks: Iterable[str]) -> Iterator[str]:
    """The text in chunks of whole words."""
    begun = ""
    for chunk in chunks:
        text = begun + chunk
        if not text or text[-1].isspace():
            whole, begun = text, ""
        else:
            *front, begun = text.rsplit(maxsplit=1)
            whole = front[0] if front else ""
        if len(begun) > LONGEST_WORD:
            raise CorpusError(
                f"the text runs on for more than {LONGEST_WORD:,} characters without white space, so that it has no "
                "words to speak of: set tokenize.level=char"
            )
        yield whole
    yield begun


def _split(text: str) -> pa.StringArray:
    """What ``str.split`` gives: the bytes between white space, one behind another, and where each word begins."""
    import pyarrow as pa

    for space in _OTHER_WHITE:
        text = text.replace(space, " ")
    content = text.encode()
    spaces = np.frombuffer(b"".join((SPACE, content.translate(_TO_SPACES), SPACE)), np.uint8) == SPACE[0]
    edges = np.flatnonzero(spaces[1:] != spaces[:-1]).reshape(-1, 2)  # of each word
    offsets = np.zeros(len(edges) + 1, np.int32)
    np.cumsum(edges[:, 1] - edges[:, 0], out=offsets[1:])
    letters = content.translate(None, _ASCII_WHITE)
    return pa.StringArray.from_buffers(len(edges), pa.py_buffer(offsets), pa.py_buffer(letters))
