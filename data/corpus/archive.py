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


def unpack(name: str, part: Path, text: Path, limit: int) -> str | None:
    """Make ``text`` of ``part``, which is used up unless it was packed; return the sha256 of a text that was unpacked.

    What ``part`` is, its first bytes say: names and content types are often wrong.

    Raises:
        CorpusError: the corpus ``name`` is damaged, holds anything but one text, or has more than ``limit`` bytes.
    """
    with part.open("rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        chunks = _gunzip(name, part)
    elif magic in (b"PK\x03\x04", b"PK\x05\x06"):  # the second: an archive of nothing
        chunks = _unzip(name, part)
    else:
        part.replace(text)
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


def _gunzip(name: str, part: Path) -> Iterator[bytes]:
    try:
        with gzip.open(part) as packed:
            while chunk := packed.read(CHUNK):
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CorpusError(f"corpus {name!r} is a damaged gzip file ({error!s:.80}); get it again") from None


def _unzip(name: str, part: Path) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(part) as archive, archive.open(_only_text(name, archive)) as packed:
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
    parts = member.filename.split("/")
    hidden = parts[0] == "__MACOSX" or parts[-1].startswith(".")
    return parts[-1] != "" and not hidden and kind in (0, stat.S_IFREG)
