"""One text out of a gzip file or a zip archive that nobody vouches for."""

from __future__ import annotations

import errno
import gzip
import hashlib
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

from data.errors import CorpusError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 18


def unpack(name: str, raw: Path, text: Path, limit: int) -> str | None:
    """Make the file ``text`` of the file ``raw``: unpack it, or just rename it where it is not packed.

    What it is, its first bytes say: names and content types are often wrong.

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
    with raw.open("rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        chunks = _gunzip(name, raw)
    elif magic in (b"PK\x03\x04", b"PK\x05\x06"):  # the second: an archive of nothing
        chunks = _unzip(name, raw)
    else:
        raw.replace(text)
        return None
    size, digest = 0, hashlib.sha256()
    with text.open("wb") as unpacked:
        for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise CorpusError(f"corpus {name!r} unpacks to more than the {limit:,} bytes that a corpus may have")
            unpacked.write(chunk)
            digest.update(chunk)
    return digest.hexdigest()


def _gunzip(name: str, raw: Path) -> Iterator[bytes]:
    try:
        with gzip.open(raw) as packed:
            while chunk := packed.read(CHUNK):
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorpusError(f"corpus {name!r} is a damaged gzip file ({error!s:.80}); get it again") from None


def _unzip(name: str, raw: Path) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(raw) as archive, archive.open(_only_text(name, archive)) as packed:
            while chunk := packed.read(CHUNK):
                yield chunk
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error, struct.error, NotImplementedError, ValueError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: an offset before the file's start
            raise
        raise CorpusError(f"corpus {name!r} is a damaged zip archive ({error!s:.80}); get it again") from None


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
