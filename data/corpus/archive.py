"""One text out of a packed file (gzip, bzip2, xz, zstd or zip) that nobody vouches for."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from data.errors import CorpusError

CHUNK = 1 << 18
XZ_MEMORY = 1 << 28
"""The most bytes of memory that unpacking xz may take: its strongest preset takes a quarter of that."""
DIRECTORY = 1 << 22
"""The most bytes of a zip archive's directory, which is read as a whole and takes eight times as many in memory."""


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
        magic = file.read(10)
    for begins, unpacker in _UNPACKERS:
        if re.match(begins, magic):
            return _limited(name, unpacker(name, raw), limit)
    return None


def _limited(name: str, chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
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
        raise _damaged(name, "gzip", error) from None


def _bunzip2(name: str, raw: Path) -> Iterator[bytes]:
    try:
        yield from _streams(raw, bz2.BZ2Decompressor)
    except (EOFError, OSError) as error:
        raise _damaged(name, "bzip2", error) from None


def _unxz(name: str, raw: Path) -> Iterator[bytes]:
    try:
        yield from _streams(raw, partial(lzma.LZMADecompressor, memlimit=XZ_MEMORY))
    except (lzma.LZMAError, EOFError) as error:
        raise _damaged(name, "xz", error) from None


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
        raise _damaged(name, "zstd", error) from None


def _unzip(name: str, raw: Path) -> Iterator[bytes]:
    try:
        with (
            _Sparing(raw.open("rb", 0)) as file,
            zipfile.ZipFile(file) as archive,
            archive.open(_only_text(name, archive)) as packed,
        ):
            while chunk := packed.read(CHUNK):
                yield chunk
    except _UNZIPPING as error:
        raise _damaged(name, "zip", error) from None
    except MemoryError:
        raise CorpusError(
            f"corpus {name!r} is a zip archive with more in it than one text; unpack it and give the path of the text"
        ) from None


class _Sparing(io.BufferedReader):
    """A file of which nobody reads more at once than the directory of an archive with one text may take."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY:
            raise MemoryError
        return super().read(size)


_UNZIPPING = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(NotImplementedError, ValueError, OverflowError),
)
"""What unpacking a zip archive that is none, or no whole one, ends in."""


def _only_text(name: str, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [member for member in archive.infolist() if _is_text(member)]
    if len(members) != 1:
        names = ", ".join(repr(member.filename[:80]) for member in members[:4])
        inside = f"{len(members)} files ({names}{', …' if len(members) > 4 else ''})" if members else "no file"
        raise CorpusError(
            f"corpus {name!r} is a zip archive with {inside} where exactly one text was expected; "
            "unpack it and give the path of the text"
        )
    (member,) = members
    if all(one.header_offset for one in archive.infolist()):
        raise CorpusError(
            f"corpus {name!r} is a zip archive behind something else that begins like one; "
            "unpack it and give the path of the text"
        )
    if member.flag_bits & 0x1:
        raise CorpusError(f"corpus {name!r} is an encrypted zip archive; unpack it and give the path of the text")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # zipfile unpacks these without a bound on memory
        raise CorpusError(
            f"corpus {name!r} is a zip archive compressed otherwise than by deflate; "
            "unpack it and give the path of the text"
        )
    return member


def _is_text(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a regular file that somebody meant to pack."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    names = member.filename.split("/")
    hidden = names[0] == "__MACOSX" or names[-1].startswith(".")
    return names[-1] != "" and not hidden and kind in (0, stat.S_IFREG)


def _damaged(name: str, kind: str, error: Exception) -> Exception:
    """What is to be raised for an error while unpacking; one of the disk's is none of the corpus."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: an offset before the start
        return error
    what = "a damaged zip archive" if kind == "zip" else f"a damaged {kind} file"
    return CorpusError(f"corpus {name!r} is {what} ({' '.join(str(error).split())!s:.80}); get it again")


_UNPACKERS: tuple[tuple[bytes, Callable[[str, Path], Iterator[bytes]]], ...] = (
    (rb"\x1f\x8b", _gunzip),
    (rb"PK(\x03\x04|\x05\x06)", _unzip),  # the second: an archive of nothing
    (rb"BZh[1-9](\x31\x41\x59\x26\x53\x59|\x17\x72\x45\x38\x50\x90)", _bunzip2),
    (rb"\xfd7zXZ\x00", _unxz),
    (rb"\x28\xb5\x2f\xfd", _unzstd),
)
"""How a file begins that is packed in one way or another."""
