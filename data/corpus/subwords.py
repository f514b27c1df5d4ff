"""Subwords: the letters that their bytes are written with, and the pieces of a text that none of them reaches across.

A piece is a line end, or a run of letters, of digits, of signs or of white space, no longer than `LONGEST`. One space
before a run belongs to it: ``the sea, 12`` falls into ``the``, `` sea``, ``,`` and `` 12``. No piece reaches across a
line end, so that a text may be read in parts; and as characters are told apart by the categories of Unicode 3.2, which
no version of Python changes, it falls into the same pieces everywhere. What came to Unicode later is a letter, but for
emoji.
"""

from __future__ import annotations

import itertools
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from data.corpus.text import code_points

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

LONGEST = 64
"""Characters of a piece: what runs on is cut after so many, so that neither a token nor what waits for the next chunk
grows with the text."""
TOGETHER = 16
"""Chunks that make an array: what is done once with each different piece of an array is done the less often."""

_SHOWN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_WRITTEN = dict(zip([*_SHOWN, *sorted({*range(256)} - {*_SHOWN})], [*_SHOWN, *range(0x100, 0x144)], strict=True))
_READ = {letter: byte for byte, letter in _WRITTEN.items()}
LETTERS = "".join(chr(_WRITTEN[byte]) for byte in range(256))
"""What each byte is written with, so that a token is a string that can be seen, though it may be a part of a character:
a byte that is a visible character of Latin-1 with that, the others, in order, with what stands from U+0100 on. GPT-2's
files have the same letters."""

_NEWLINE, _SPACE, _BLANK, _DIGIT, _SIGN, _LETTER = range(6)
_EMOJI = 0x1F000
_JOINERS = 0x200C, 0x200D
"""They stand within words."""


def written(text: str) -> str:
    """The bytes of a text in UTF-8, by their letters."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1").translate(_WRITTEN)


def raw(token: str) -> bytes:
    """The bytes that letters stand for."""
    return token.translate(_READ).encode("latin-1")


def characters(token: str) -> int:
    """How many characters begin in a token, or in several that are joined: its bytes that go on with none."""
    return int(np.count_nonzero(np.frombuffer(raw(token), np.int8) >= -0x40))


def split(text: str) -> list[str]:
    """The pieces of a short text."""
    codes = np.fromiter(map(ord, text), np.uint32, len(text))
    ends = _ends(codes, final=True).tolist()
    return [text[start:end] for start, end in itertools.pairwise([0, *ends])]


def pieces(chunks: Iterable[str]) -> Iterator[pa.DictionaryArray]:
    """The pieces of a text, an array for every few chunks that holds each different one once."""
    import pyarrow as pa

    cut = _cut(chunks)
    while several := list(itertools.islice(cut, TOGETHER)):
        sizes = np.concatenate([sizes for _, sizes in several])
        offsets = np.zeros(len(sizes) + 1, np.int32)
        np.cumsum(sizes, out=offsets[1:])
        content = pa.py_buffer(b"".join(content for content, _ in several))
        if len(sizes):
            yield pa.Array.from_buffers(
                pa.string(), len(sizes), [None, pa.py_buffer(offsets), content]
            ).dictionary_encode()


def several(texts: Sequence[str]) -> tuple[pa.DictionaryArray, list[int]]:
    """The pieces of short texts, one or more, one text behind another; and how many each of them has."""
    import pyarrow.compute as pc

    # No piece reaches across a line end, so one between two texts changes none, and can be taken out again.
    [array] = pieces(["\n".join([*texts, ""])])
    line_ends = np.flatnonzero(array.indices.to_numpy() == pc.index(array.dictionary, "\n").as_py())
    between = line_ends[np.cumsum([text.count("\n") + 1 for text in texts]) - 1]
    kept = np.ones(len(array), np.bool_)
    kept[between] = False
    return array.filter(kept), (np.diff(between, prepend=-1) - 1).tolist()


def _cut(chunks: Iterable[str]) -> Iterator[tuple[bytes, NDArray[np.intp]]]:
    """The text in chunks of whole pieces, and each piece's bytes. The last piece waits for what may go on with it."""
    begun = ""
    for chunk in itertools.chain(chunks, [None]):
        text = begun + (chunk or "")
        codes = code_points(text)
        ends = _ends(codes, final=chunk is None)
        stop = int(ends[-1]) if len(ends) else 0
        begun = text[stop:]
        if codes.dtype != np.uint8 and len(ends):
            width = np.ones(stop, np.uint8)
            for least in (0x80, 0x800, 0x10000):
                width += codes[:stop] >= least
            ends = width.cumsum(dtype=np.intp)[ends - 1]
        yield text[:stop].encode(), np.diff(ends, prepend=0)


def _ends(codes: NDArray[np.unsignedinteger], *, final: bool) -> NDArray[np.intp]:
    """Behind which characters a piece ends, whatever comes next; where the text ends here, the last one does too."""
    if not len(codes):
        return np.empty(0, np.intp)
    kinds = _kinds().take(codes, mode="clip")
    space, line_end = kinds == _SPACE, kinds == _NEWLINE
    begins = np.ones(len(codes), np.bool_)
    begins[1:] = ((kinds[1:] != kinds[:-1]) & ~space[:-1]) | line_end[1:] | line_end[:-1]
    # Of several spaces the last one belongs to what comes behind it.
    begins[1:-1] |= space[1:-1] & space[:-2] & ~space[2:] & ~line_end[2:]
    starts = np.flatnonzero(begins)
    cuts = (np.diff(starts, append=len(codes)) - 1) // LONGEST
    if cuts.any():
        many = cuts + 1
        within = np.arange(many.sum()) - np.repeat(many.cumsum() - many, many)
        starts = np.repeat(starts, many) + LONGEST * within
    return np.append(starts[1:], len(codes)) if final else starts[1:]


@cache
def _kinds() -> NDArray[np.uint8]:
    """Code point → what it is. The last entry stands for all code points from there."""
    return np.array([*map(_kind, map(chr, range(0x1FB00))), _LETTER], np.uint8)


def _kind(character: str) -> int:
    if character in "\n ":
        return _NEWLINE if character == "\n" else _SPACE
    if character.isspace():
        return _BLANK
    category = unicodedata.ucd_3_2_0.category(character)
    if category == "Nd":
        return _DIGIT
    if ord(character) in _JOINERS or (category[0] not in "PSZ" and category not in ("Cc", "Cf")):
        return _SIGN if ord(character) >= _EMOJI else _LETTER
    return _SIGN
