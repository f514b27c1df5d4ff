"""The words of a text: what stands between white space, in arrays that hold each different word once."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from data.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

TOGETHER = 16
"""Chunks that make an array: what is done once with each different word of an array is done the less often."""
LONGEST_WORD = 1_000_000
"""Characters without white space after which a text is not a text of words."""

SPACE = " "
_OTHER_WHITE = [chr(code) for code in range(0x3001) if chr(code).isspace() and chr(code) != SPACE]


def words(chunks: Iterable[str]) -> Iterator[pa.DictionaryArray]:
    """What stands between white space, as ``str.split`` has it: an array for every few chunks, none without words.

    Raises:
        CorpusError: more than ``LONGEST_WORD`` characters without white space.
    """
    whole = map(_spaced, _uncut(chunks))
    while several := list(itertools.islice(whole, TOGETHER)):
        array = _split(b"".join(several))
        if len(array):
            yield array


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


def _spaced(text: str) -> bytes:
    """A text with a space for each white character, and one at its end."""
    for white in _OTHER_WHITE:
        text = text.replace(white, SPACE)
    return (text + SPACE).encode()


def _split(content: bytes) -> pa.DictionaryArray:
    """The words of a text that ends with a space. Each is looked up where it lies, with the one space behind it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord(SPACE)) + 1
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = ends
    parts = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    encoded = pa.Array.from_buffers(pa.binary(), len(ends), parts).dictionary_encode()
    found, indices = encoded.dictionary, encoded.indices.to_numpy()
    nothing = pc.index(found, SPACE.encode()).as_py()  # between two spaces
    if nothing >= 0:
        indices = indices[indices != nothing]
    return pa.DictionaryArray.from_arrays(indices, pc.binary_slice(found, 0, -1).cast(pa.string()))
