"""From bytes in an encoding that somebody named to text in UTF-8; what does not fit is refused, nothing is guessed."""

from __future__ import annotations

import codecs
import difflib
import encodings.aliases
import hashlib
import re
from itertools import chain
from typing import TYPE_CHECKING

from data.corpus.guess import MARKS, SAMPLE, advice
from data.errors import ConfigError, CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

CHUNK = 1 << 18
UTF8 = "utf-8"
_WIDE = ("utf-16", "utf-32")
"""Of these a mark at the beginning says which bytes come first."""
_NOT_OF_FILES = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "charmap", "mbcs", "oem"}
"""Codecs for text that are no encoding of a file: of names of hosts, of source code, or of one system's."""


def codec(name: str) -> str:
    """The one name of an encoding that has several: ``iso8859-1`` of ``latin-1``.

    Raises:
        ConfigError: nothing that Python knows, or nothing that a file of text may be in.
    """
    try:
        found = codecs.lookup(name) if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,40}", name) else None
    except LookupError:
        found = None
    if (
        found is None
        or not found._is_text_encoding
        or found.incrementaldecoder is None
        or found.name.replace("-", "_") in _NOT_OF_FILES
    ):
        known = [other.replace("_", "-") for other in {*encodings.aliases.aliases.values()} - _NOT_OF_FILES]
        close = difflib.get_close_matches(name.lower().replace("_", "-"), sorted(known), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; name one as Python does: utf-8, latin-1, cp1252, utf-16"
        raise ConfigError(f"download.encoding: there is no encoding of texts called {name!r}{hint}")
    return found.name


class Decoding:
    """One text on its way from bytes to UTF-8.

    Args:
        what: it is, for errors: ``corpus 'letters.txt'``.
        encoding: of its bytes, as `codec` calls it.
    """

    def __init__(self, what: str, encoding: str = UTF8) -> None:
        self.blank = True
        """Whether nothing but white space has come so far."""
        self.size = 0
        """Bytes that have come so far, before they were decoded."""
        self._what, self._encoding = what, encoding
        self._start, self._before = b"", b""

    def utf8(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The text in UTF-8, in chunks; a byte order mark stays where the encoding does not take it for its own.

        Raises:
            CorpusError: bytes that are not of the encoding, or NUL; says what they seem to be instead.
        """
        decoder = codecs.getincrementaldecoder(self._encoding)()
        waiting, lines, characters = self._marked(filter(None, chunks)), 1, 0
        final = False
        while not final:
            chunk = next(waiting, b"")
            final = not chunk
            if len(self._start) < SAMPLE:
                self._start += chunk[:SAMPLE]
            pending = len(decoder.getstate()[0])
            try:
                decoded = decoder.decode(chunk, final=final)
            except UnicodeError as error:
                at = error.start - pending if isinstance(error, UnicodeDecodeError) else 0
                lines += chunk.count(b"\n", 0, max(at, 0))
                line = "" if self._encoding.startswith(_WIDE) else f", in line {lines:,}"
                raise self._refusal(f"byte {self.size + at:,}{line}", chunk, at, waiting) from None
            nul = decoded.find("\0")
            if nul >= 0:
                at = chunk.find(b"\0")
                where = f"byte {self.size + at:,}, in line {lines + chunk.count(bytes([10]), 0, at):,}"
                if self._encoding != UTF8:
                    where = f"character {characters + nul:,}"
                raise self._refusal(where, chunk, at, waiting, nul=True)
            self.blank = self.blank and not decoded.replace("\ufeff", "").strip()
            self.size, lines, characters = self.size + len(chunk), lines + chunk.count(b"\n"), characters + len(decoded)
            self._before = chunk[-SAMPLE:]
            if self._encoding == UTF8:
                if chunk:
                    yield chunk
            elif decoded:
                yield self._encoded(decoded)

    def _encoded(self, decoded: str) -> bytes:
        try:
            return decoded.encode()
        except UnicodeEncodeError:
            raise CorpusError(
                f"{self._what} has half a pair of UTF-16 as a character, which no text in UTF-8 can have; correct it, "
                "and give that file"
            ) from None

    def _marked(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The same chunks; refuses a text without the mark that its encoding needs."""
        if self._encoding not in _WIDE:
            return chunks
        first = b""
        while len(first) < len(codecs.BOM_UTF32_LE) and (more := next(chunks, b"")):
            first += more
        if first and not first.startswith(MARKS[self._encoding]):
            either = " or ".join(f"`--set download.encoding={self._encoding}-{order}`" for order in ("le", "be"))
            raise CorpusError(
                f"{self._what} does not begin with a byte order mark, which says how {self._encoding} is to be read: "
                f"type {either}, whichever it is, or leave the encoding out, and be told what it looks like"
            )
        return chain((first,), chunks) if first else chunks

    def _refusal(self, where: str, chunk: bytes, at: int, rest: Iterator[bytes], *, nul: bool = False) -> CorpusError:
        """What is said of a byte at a place of a chunk, given what came before it and what comes behind it."""
        around, place = self._before + chunk, len(self._before) + at
        while len(around) < place + SAMPLE // 2 and (more := next(rest, b"")):
            around += more
        sample = around[max(place - SAMPLE // 2, 0) :][:SAMPLE]
        start = around if self.size + len(chunk) <= SAMPLE else self._start
        found = advice(sample, start[:SAMPLE], nul, self._encoding)
        return CorpusError(f"{self._what} is not {self._encoding.upper()} text ({where}) {found}")


def check_utf8(name: str, path: Path) -> None:
    """Read the file once and refuse what is not UTF-8, what holds NUL bytes and what holds nothing but white space.

    Raises:
        CorpusError: says what the corpus ``name`` seems to be instead.
    """
    with path.open("rb") as file:
        for _ in decoded(name, _chunks(file)):
            pass


def convert(name: str, path: Path, text: Path, encoding: str) -> str:
    """Make the file ``text`` in UTF-8 of a file in another encoding, and give its SHA-256 in hexadecimal digits.

    Raises:
        CorpusError: as `check_utf8` does.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file, text.open("wb") as converted:
        for chunk in decoded(name, _chunks(file), encoding):
            converted.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def decoded(name: str, chunks: Iterable[bytes], encoding: str = UTF8) -> Iterator[bytes]:
    """The bytes of the corpus ``name`` in UTF-8, in chunks.

    Raises:
        CorpusError: as `check_utf8` does; where nothing is but white space, once all of it has come.
    """
    decoding = Decoding(f"corpus {name!r}", encoding)
    yield from decoding.utf8(chunks)
    if decoding.size == 0:
        raise CorpusError(f"corpus {name!r} is empty; give one that holds text")
    if decoding.blank:
        raise CorpusError(f"corpus {name!r} holds nothing but white space; give one that holds text")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(CHUNK), b"")
