"""Whether bytes are UTF-8 text, and what they seem to be where they are not."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

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
    blank, offset, head = True, 0, b""
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK)
            head = head or chunk
            pending = len(decoder.getstate()[0])
            try:
                decoded = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise CorpusError(_not_utf8(name, head, offset - pending + error.start)) from None
            nul = chunk.find(b"\0")
            if nul >= 0:
                raise CorpusError(_not_utf8(name, head, offset + nul))
            blank = blank and not decoded.replace("\ufeff", "").strip()
            offset += len(chunk)
            if not chunk:
                break
    if offset == 0:
        raise CorpusError(f"corpus {name!r} is empty; give one that holds text")
    if blank:
        raise CorpusError(f"corpus {name!r} holds nothing but white space; give one that holds text")


def _not_utf8(name: str, head: bytes, offset: int) -> str:
    """What a text that is not UTF-8 seems to be, judged by its first bytes."""
    what = f"corpus {name!r} is not UTF-8 text (byte {offset:,})"
    encoding = _wide_encoding(head)
    if encoding:
        return f"{what} but seems to be {encoding}; convert it with `iconv -f {encoding} -t UTF-8` and give that file"
    if b"\0" in head:
        return f"{what} but seems to be a binary file; give a plain text"
    return f"{what}; if it is Latin-1, convert it with `iconv -f ISO-8859-1 -t UTF-8` and give the path of that file"


def _wide_encoding(head: bytes) -> str:
    """``UTF-16`` or ``UTF-32``, with its byte order where no mark gives it; empty if ``head`` looks like neither."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    # Mostly Western text: every other byte is NUL, the odd ones if the little end comes first.
    pairs = max(len(head) // 2, 1)
    if head[1::2].count(0) > 0.7 * pairs and head[::2].count(0) < 0.1 * pairs:
        return "UTF-16LE"
    if head[::2].count(0) > 0.7 * pairs and head[1::2].count(0) < 0.1 * pairs:
        return "UTF-16BE"
    return ""
