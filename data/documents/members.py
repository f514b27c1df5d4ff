"""The texts in a zip or tar archive that nobody vouches for.

What a member is called is only ever a name: nothing is written where it says.
"""

from __future__ import annotations

import errno
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.documents.files import may_be_text, spelt
from data.errors import CorpusError

CHUNK = 1 << 18
DIRECTORY = 1 << 24
"""The most bytes of a zip archive's directory, which is read as a whole and takes eight times as many in memory; and of
what a tar archive says of one member beside its content."""
MEMBERS = 1 << 20
"""The most members of an archive."""
ZIP, TAR = rb"PK(\x03\x04|\x05\x06)", rb".{257}ustar(\x00|  \x00)"
"""How an archive begins; of zip the second is one of nothing. A text may say "mustard" there, but has no zero byte."""

_UNZIPPING = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(NotImplementedError, ValueError, OverflowError),
)
"""What unpacking a zip archive that is none, or no whole one, ends in."""
_UNTARRING = (tarfile.TarError, struct.error, EOFError, OSError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    """Its path in it."""
    chunks: Iterator[bytes]
    """Its content, which is to be read before the next member is asked for."""


class _Sparing(io.BufferedReader):
    """A file of which nobody reads more at once than a directory may take, nor all that is left of it."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY:
            raise MemoryError
        return super().read(size)


class _Sized(_Sparing):
    """One of which only so many bytes are read as somebody says."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise ValueError("a size below zero")
        return super().read(size)


def names(name: str, raw: Path) -> list[str]:
    """What the files of a zip archive are called, but for hidden ones.

    Raises:
        CorpusError: it is damaged.
    """
    try:
        with _Sparing(raw.open("rb", 0)) as file, zipfile.ZipFile(file) as archive:
            return [member.filename for member in archive.infolist() if _is_file(member)]
    except _UNZIPPING as error:
        raise damaged(name, "zip archive", error) from None
    except MemoryError:
        raise _too_many(name) from None


def only(name: str, raw: Path) -> Iterator[bytes]:
    """The one text in a zip archive, in chunks.

    Raises:
        CorpusError: it is damaged, or has anything else in it than one file.
    """
    try:
        with _Sparing(raw.open("rb", 0)) as file, zipfile.ZipFile(file) as archive:
            found = [member for member in archive.infolist() if _is_file(member)]
            if len(found) != 1:
                names = ", ".join(repr(member.filename[:80]) for member in found[:4])
                inside = f"{len(found)} files ({names}{', …' if len(found) > 4 else ''})" if found else "no file"
                raise CorpusError(
                    f"corpus {name!r} is a zip archive with {inside} where exactly one text was expected; "
                    "unpack it and give the path of the text"
                )
            _check(name, archive, found)
            with archive.open(found[0]) as packed:
                while chunk := packed.read(CHUNK):
                    yield chunk
    except _UNZIPPING as error:
        raise damaged(name, "zip archive", error) from None
    except MemoryError:
        raise _too_many(name) from None


def of_zip(name: str, raw: Path) -> Iterator[Member]:
    """The texts in a zip archive, by the bytes of their names.

    Raises:
        CorpusError: it is damaged, encrypted, or packed in a way that has no bound on memory.
    """
    try:
        with _Sparing(raw.open("rb", 0)) as file, zipfile.ZipFile(file) as archive:
            found = [member for member in archive.infolist() if _is_file(member)]
            if len(found) > MEMBERS:
                raise MemoryError
            _check(name, archive, found)
            found.sort(key=lambda member: _order(member.filename))
            for member in found:
                if may_be_text(member.filename):
                    yield Member(member.filename, _unzipped(name, archive, member))
    except _UNZIPPING as error:
        raise damaged(name, "zip archive", error) from None
    except MemoryError:
        raise _too_many(name) from None


def _unzipped(name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(member) as packed:
            while chunk := packed.read(CHUNK):
                yield chunk
    except _UNZIPPING as error:
        raise damaged(name, "zip archive", error, member.filename) from None


def _check(name: str, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> None:
    """Refuse what is no plain archive of plainly packed files."""
    if members and all(one.header_offset for one in archive.infolist()):
        raise CorpusError(
            f"corpus {name!r} is a zip archive behind something else that begins like one; "
            "unpack it and give the path of the text"
        )
    for member in members:
        inside = "" if len(members) == 1 else f", in {spelt(member.filename)[:80]!r} at least"
        if member.flag_bits & 0x1:
            raise CorpusError(
                f"corpus {name!r} is an encrypted zip archive{inside}; unpack it and give the path of the text"
            )
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # zipfile unpacks these without a bound on memory
            raise CorpusError(
                f"corpus {name!r} is a zip archive compressed otherwise than by deflate{inside}; "
                "unpack it and give the path of the text"
            )


def of_tar(name: str, raw: Path) -> Iterator[Member]:
    """The texts in a tar archive, by the bytes of their names. Links, pipes and devices in it are passed over.

    Raises:
        CorpusError: it is damaged, or has holes.
    """
    size = raw.stat().st_size
    found: list[tuple[bytes, int, int]] = []
    try:
        with _Sized(raw.open("rb", 0)) as file:
            archive = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
            last = -1
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # which would only grow
                if archive.offset <= last or not 0 <= member.size <= size - member.offset_data:
                    raise tarfile.ReadError("a member does not lie in it")
                last = archive.offset
                if not member.isreg() or _is_hidden(member.name):
                    continue
                if member.sparse is not None:
                    raise CorpusError(
                        f"{spelt(member.name)[:80]!r} of corpus {name!r} has holes, as no text has; unpack it and give "
                        "the path of the folder"
                    )
                if len(found) >= MEMBERS:
                    raise MemoryError
                if may_be_text(member.name):
                    found.append((_order(member.name), member.offset_data, member.size))
            file.seek(archive.offset)
            if not (end := file.read(512)) or end.strip(b"\0"):  # a header that cannot be read ends the list as well
                raise tarfile.ReadError("it ends too early, or goes on with something else")
    except _UNTARRING as error:
        raise damaged(name, "tar archive", error) from None
    except MemoryError:
        raise _too_many(name) from None
    found.sort(key=lambda one: one[0])
    with raw.open("rb") as file:
        for called, start, length in found:
            yield Member(called.decode("utf-8", "surrogateescape"), _piece(file, start, length))


def _piece(file: io.BufferedReader, start: int, length: int) -> Iterator[bytes]:
    file.seek(start)
    while length and (chunk := file.read(min(length, CHUNK))):
        yield chunk
        length -= len(chunk)


def _order(name: str) -> bytes:
    """What members are sorted by."""
    return name.removeprefix("./").encode("utf-8", "surrogateescape")


def _is_file(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a regular file that somebody meant to pack."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    return not member.filename.endswith("/") and not _is_hidden(member.filename) and kind in (0, stat.S_IFREG)


def _is_hidden(name: str) -> bool:
    names = name.split("/")
    return names[0] == "__MACOSX" or any(part.startswith(".") and part not in (".", "..") for part in names)


def _too_many(name: str) -> CorpusError:
    return CorpusError(
        f"corpus {name!r} is an archive with more in it than the {MEMBERS:,} files that are read of one; unpack it and "
        "give the path of the folder"
    )


def damaged(name: str, kind: str, error: BaseException, member: str = "") -> BaseException:
    """What is to be raised for an error while unpacking; one of the disk's is none of the corpus."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: an offset before the start
        return error
    inside = f", at {spelt(member)[:80]!r}" if member else ""
    return CorpusError(
        f"corpus {name!r} is a damaged {kind}{inside} ({' '.join(str(error).split())!s:.80}); get it again"
    )
