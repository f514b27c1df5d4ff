"""Whether bytes are UTF-8 text, and where they are not."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from data.corpus.guess import SAMPLE, advice
from data.errors import CorpusError

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 1 << 18


def check_utf8(name: str, path: Path) -> None:
    """Read the file once and refuse what is not UTF-8, what holds NUL bytes and what holds nothing but white space.

    Raises:
        CorpusError: says what the corpus ``name`` seems to be instead.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    blank, offset, lines = True, 0, 1
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK)
            pending = len(decoder.getstate()[0])
            try:
                decoded = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                position = error.start - pending
                lines += chunk.count(b"\n", 0, max(position, 0))
                raise CorpusError(_not_utf8(name, path, offset + position, lines)) from None
            nul = chunk.find(b"\0")
            if nul >= 0:
                lines += chunk.count(b"\n", 0, nul)
                raise CorpusError(_not_utf8(name, path, offset + nul, lines, nul=True))
            blank = blank and not decoded.replace("\ufeff", "").strip()
            offset, lines = offset + len(chunk), lines + chunk.count(b"\n")
            if not chunk:
                break
    if offset == 0:
        raise CorpusError(f"corpus {name!r} is empty; give one that holds text")
    if blank:
        raise CorpusError(f"corpus {name!r} holds nothing but white space; give one that holds text")


def _not_utf8(name: str, path: Path, offset: int, line: int, *, nul: bool = False) -> str:
    with path.open("rb") as file:
        start = file.read(SAMPLE)
        file.seek(max(offset - SAMPLE // 2, 0))
        sample = file.read(SAMPLE)
    return f"corpus {name!r} is not UTF-8 text (byte {offset:,}, in line {line:,}) {advice(sample, start, nul)}"
