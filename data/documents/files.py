"""The files of a folder, or those that a pattern such as ``notes/**/*.txt`` names: which, in which order, and as what.

A folder is all that stands below it and may be text. Names that begin with a dot are passed over, as a shell does; so
is, of a folder, what by its suffix is a picture, a sound, a film, a font, a program or an office's document. A link is
followed to a file below the same folder, and never to a folder, so that none leads in a circle.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from data import shown
from data.errors import CorpusError
from data.store import cache

logger = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between two lines of a log that say how far this is."""
_SUFFIXES = """
    7z a aac avi avif bin bmp class dll dmg doc docx dylib eot epub exe flac gif heic ico iso jar jpeg jpg m4a m4v mdb
    mkv mobi mov mp3 mp4 mpeg mpg npy npz o odp ods odt ogg onnx otf pdf pkl png ppt pptx pt pth pyc rar safetensors so
    sqlite tif tiff ttf wav webm webp wma wmv woff woff2 xls xlsx
"""
NO_TEXT = frozenset(_SUFFIXES.split())
"""Suffixes of files that are no text; one of a folder that has none of these and is no text all the same is an error
that names it."""
_MAGIC = re.compile(r"[*?[]")
_ANYWHERE = "**"

What = Literal["file", "folder", "link", "no text"]
"""A file that is taken, a folder that was looked into; a link that leads elsewhere and a suffix of no text are not
taken."""


def is_pattern(corpus: str) -> bool:
    """Whether a path is a pattern of paths, and no address whose second slash was forgotten."""
    return _MAGIC.search(corpus) is not None and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", corpus)


@dataclass(frozen=True)
class Files:
    """A folder, or a pattern of paths below one."""

    name: str
    """As the user named it."""
    root: Path
    pattern: tuple[str, ...] = ()
    """Its parts, below the root; none for a folder."""

    @classmethod
    def of(cls, name: str, path: Path) -> Files:
        """Those that a path names, which may be a pattern: below the last folder in it that is none."""
        parts = path.parts
        first = next((at for at, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
        return cls(name, Path(*parts[:first]), parts[first:])

    def walk(self) -> Iterator[tuple[What, str, str]]:
        """What there is: what it is, its name (the path below the root) and its path; in the order of the bytes of
        their names, each folder before what is in it.

        No more is kept in memory than the names in the folders on the way to where this is.

        Raises:
            CorpusError: a folder that cannot be read, or a pipe, a socket or a device where a file could be.
        """
        real = os.path.realpath(self.root)
        wanted = self.pattern or (_ANYWHERE, "*")
        below = [("", str(self.root), _reached(wanted, {0}))]
        waiting = [self._entries(below[0][1], wanted, below[0][2])]
        yield "folder", "", below[0][1]
        while waiting:
            key = next(waiting[-1], None)
            if key is None:
                waiting.pop()
                below.pop()
                continue
            prefix, folder, places = below[-1]
            entry = os.fsdecode(key.removesuffix(b"/"))
            name, path, after = prefix + entry, f"{folder}/{entry}", _after(wanted, places, entry)
            if key.endswith(b"/"):
                yield "folder", name, path
                waiting.append(self._entries(path, wanted, after))
                below.append((f"{name}/", path, after))
            elif len(wanted) in after and (kind := self._what(name, path, real)):
                yield kind, name, path

    def _entries(self, folder: str, wanted: tuple[str, ...], places: set[int]) -> Iterator[bytes]:
        """The names in a folder that have a place in the pattern, with a slash behind those of folders, so that they
        are sorted as the paths below them will be."""
        try:
            with os.scandir(folder) as listed:
                found = [
                    os.fsencode(entry.name) + b"/" * entry.is_dir(follow_symlinks=False)
                    for entry in listed
                    if _after(wanted, places, entry.name)
                ]
        except OSError as error:
            raise CorpusError(
                f"the folder {folder!r} of the corpus {self.name!r} cannot be read: {error.strerror}"
            ) from None
        found.sort(reverse=True)
        while found:
            yield found.pop()

    def _what(self, name: str, path: str, real: str) -> What | None:
        """What an entry is that is no folder; None for a link to one, which is not gone after."""
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                target = os.path.realpath(path)
                if not target.startswith(real.rstrip("/") + "/"):
                    return "link"
                mode = Path(target).stat().st_mode
                if stat.S_ISDIR(mode):
                    return None
        except (OSError, ValueError):
            return "link"  # to nothing, or to itself; or gone meanwhile
        if not stat.S_ISREG(mode):
            raise CorpusError(
                f"{name!r} of the corpus {self.name!r} is a pipe, a socket or a device and no file: take it out, or "
                "name by a pattern what is to be read, such as 'notes/**/*.txt'"
            )
        return "file" if self.pattern or may_be_text(name) else "no text"

    def identity(self, most: int, how: Callable[[Path], str]) -> str:
        """One digest of all names and contents; a file that has not changed since it was read is not read again.

        Args:
            most: bytes that all of them may have.
            how: reads one file, and gives the digest of its content.

        Raises:
            CorpusError: none, one that cannot be read, or more bytes than that.
        """
        digest, told, left_out = Digest(), time.monotonic(), Counter[str]()

        def files() -> Iterator[tuple[str, str]]:
            nonlocal told
            number = size = 0
            for what, name, path in self.walk():
                if what != "file":
                    left_out[what] += 1
                    continue
                number += 1
                try:
                    size += os.stat(path).st_size  # noqa: PTH116 (a million times)
                except OSError as error:
                    raise self.unreadable(name, error) from None
                if size > most:
                    raise CorpusError(
                        f"the files of {self.name!r} have more than the {most:,} bytes that a corpus may have; name "
                        "fewer of them"
                    )
                if time.monotonic() - told > EVERY:
                    told = time.monotonic()
                    logger.info("%s: %s files so far, %s bytes", self.name, f"{number:,}", f"{size:,}")
                yield name, path

        place = "/".join((os.path.abspath(self.root), *self.pattern))  # noqa: PTH100 (links stay)
        for name, sha256 in cache.digests(place, files(), lambda name, path: self._digest(name, path, how)):
            digest.add(name, sha256)
        if not digest.number:
            raise CorpusError(self._nothing(left_out))
        return digest.hexdigest()

    def _digest(self, name: str, path: str, how: Callable[[Path], str]) -> str:
        try:
            return how(Path(path))
        except OSError as error:
            raise self.unreadable(name, error) from None

    def unreadable(self, name: str, error: OSError) -> CorpusError:
        """What is said of a file that cannot be read, or is not there any more."""
        if isinstance(error, FileNotFoundError):
            return self.changed(name)
        return CorpusError(f"{name!r} of the corpus {self.name!r} cannot be read: {error.strerror or error}")

    def changed(self, name: str = "") -> CorpusError:
        """What is said of files, or of one, that are others than they were a moment ago."""
        what = f"{name!r} of the corpus {self.name!r}" if name else f"the corpus {self.name!r}"
        return CorpusError(f"{what} changed while it was read; run again once it is complete")

    def _nothing(self, left_out: Counter[str]) -> str:
        beside = [
            f"{words} ({left_out[what]:,})"
            for what, words in (("no text", "what by its suffix is no text"), ("link", "links that lead away"))
            if left_out[what]
        ]
        there = f", but for {' and '.join(beside)}" if beside else ""
        if self.pattern:
            return f"no file is called as {self.name!r} says{there}; in quotes, ** stands for any folders below"
        return f"the folder {self.name!r} has no file to read{there}; name one that has"


class Digest:
    """One digest of many files, from the name and the digest of each."""

    def __init__(self) -> None:
        self.number = 0
        """Of files."""
        self._sum = hashlib.sha256()

    def add(self, name: str, sha256: str) -> None:
        """Add a file."""
        self.number += 1
        self._sum.update(hashlib.sha256(os.fsencode(name)).digest() + bytes.fromhex(sha256))

    def hexdigest(self) -> str:
        """Of all so far."""
        return self._sum.hexdigest()


def may_be_text(name: str) -> bool:
    """Whether a file may be text by its suffix."""
    _, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return not (dot and suffix.lower() in NO_TEXT)


def spelt(name: str) -> str:
    """A file's name as a document has it: text on one line, whatever bytes it is of."""
    return shown.visible(name).replace("\n", "\\n").replace("\t", "\\t")


def _reached(wanted: tuple[str, ...], places: set[int]) -> set[int]:
    """Places in a pattern, and those behind a ``**``, which may stand for nothing."""
    reached = set(places)
    for place in sorted(places):
        while place < len(wanted) and wanted[place] == _ANYWHERE:
            place += 1
            reached.add(place)
    return reached


def _after(wanted: tuple[str, ...], places: set[int], name: str) -> set[int]:
    """The places in a pattern that a name leads to, from some; its length is where a file is named."""
    after = set()
    for place in places:
        if place == len(wanted):
            continue
        part = wanted[place]
        if name.startswith(".") and not part.startswith("."):
            continue
        if part == _ANYWHERE:
            after.add(place)
        elif fnmatchcase(name, part):
            after.add(place + 1)
    return _reached(wanted, after)
