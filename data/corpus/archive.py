"""One text out of a packed file (gzip, bzip2, xz, zstd or zip) that nobody vouches for."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from data.documents import members
from data.documents.members import damaged
from data.errors import CorpusError

CHUNK = 1 << 18
XZ_MEMORY = 1 << 28
"""The most bytes of memory that unpacking xz may take: its strongest preset takes a quarter of that."""


def unpack(name: str, raw: Path, text: Path, limit: int) -> str | None:
    """Make the file ``text`` of the file ``raw``: unpack it, or just rename it where it is not packed.

    Args:
        name: of the corpus, for errors.
        raw: the bytes as they came.
        text: what is written.
        limit: the most bytes that it may unpack to.

    Returns:
        The SHA-256 of a text that was unpacked, in hexadecimal digits; None where it was only renamed.

    Raises:
        CorpusError: it is damaged, holds anything but one text, or has more than ``limit`` bytes.
    """
    chunks = unpacked(name, raw, limit)
    if chunks is None:
        raw.replace(text)
        return None
    digest = hashlib.sha256()
    with text.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def unpacked(name: str, raw: Path, limit: int) -> Iterator[bytes] | None:
    """The text in a packed file, in chunks; None where it is not packed.

    What it is, its first bytes say: names and content types are often wrong. Arguments and errors are `unpack`'s.
    """
    with raw.open("rb") as file:
        unpacker = _unpacker(file.read(10))
    return limited(name, unpacker(name, raw), limit) if unpacker else None


def is_packed(head: bytes) -> bool:
    """Whether a file that begins like this is packed."""
    return _unpacker(head) is not None


def _unpacker(head: bytes) -> Callable[[str, Path], Iterator[bytes]] | None:
    return next((unpacker for begins, unpacker in _UNPACKERS if re.match(begins, head)), None)


def limited(name: str, chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """Chunks of what is unpacked, of which there may be so many bytes."""
    size = 0
    try:
        for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise CorpusError(f"corpus {name!r} unpacks to more than the {limit:,} bytes that a corpus may have")
            yield chunk
    except MemoryError:
        raise CorpusError(
            f"corpus {name!r} takes more memory to unpack than there is; unpack it and give the path of the text"
        ) from None


def _gunzip(name: str, raw: Path) -> Iterator[bytes]:
    try:
        with gzip.open(raw) as packed:
            while chunk := packed.read(CHUNK):
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(name, "gzip file", error) from None


def _bunzip2(name: str, raw: Path) -> Iterator[bytes]:
    try:
        yield from _streams(raw, bz2.BZ2Decompressor)
    except (EOFError, OSError) as error:
        raise damaged(name, "bzip2 file", error) from None


def _unxz(name: str, raw: Path) -> Iterator[bytes]:
    try:
        yield from _streams(raw, partial(lzma.LZMADecompressor, memlimit=XZ_MEMORY))
    except (lzma.LZMAError, EOFError) as error:
        raise damaged(name, "xz file", error) from None


def _streams(raw: Path, begin: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> Iterator[bytes]:
    """What is packed in one stream behind another, with zeros between or behind them, and with nothing else.

    What cannot be unpacked is no end, or a text would be cut short where one of its streams is damaged.
    """
    with raw.open("rb") as file:
        data = file.read(CHUNK)
        while data:
            stream = begin()
            while not stream.eof:
                yield stream.decompress(data, CHUNK)
                data = b""
                if stream.needs_input and not stream.eof and not (data := file.read(CHUNK)):
                    raise EOFError("it ends too early")
            data = stream.unused_data.lstrip(b"\0")
            while not data and (more := file.read(CHUNK)):
                data = more.lstrip(b"\0")


def _unzstd(name: str, raw: Path) -> Iterator[bytes]:
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.OSFile(os.fsencode(raw)), "zstd") as packed:
            while chunk := packed.read(CHUNK):
                yield chunk
    except pa.ArrowMemoryError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise damaged(name, "zstd file", error) from None


_UNPACKERS: tuple[tuple[bytes, Callable[[str, Path], Iterator[bytes]]], ...] = (
    (rb"\x1f\x8b", _gunzip),
    (members.ZIP, members.only),
    (rb"BZh[1-9](\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)", _bunzip2),
    (rb"\xfd7zXZ\x00", _unxz),
    (rb"\x28\xb5\x2f\xfd", _unzstd),
)
"""How a file begins that is packed in one way or another."""
