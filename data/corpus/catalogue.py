"""From what a user calls a corpus to where its bytes are: the catalogue, an http(s) address, a file or many of them."""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from data.corpus import spool
from data.corpus.address import check, identity, is_address, written
from data.documents import urls
from data.documents.files import Files, is_pattern
from data.documents.urls import fetching
from data.errors import CorpusError
from data.store import cache

CATALOGUE = Path(__file__).with_name("corpora.toml")
CHUNK = 1 << 18
MAX_BYTES = 4 << 30
"""The most that is read for one corpus, and the most that it may unpack to."""


@dataclass(frozen=True)
class Corpus:
    """One entry of the catalogue: either ``addresses`` with their ``sha256``, or a packaged ``file``."""

    name: str
    title: str
    licence: str
    addresses: tuple[str, ...] = ()
    sha256: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Source:
    """Where a corpus comes from: ``addresses`` to try in turn, or the ``path`` of a local file."""

    name: str
    """The corpus as the user named it, without secrets."""
    addresses: tuple[str, ...] = field(repr=False)
    """As they were given: what is secret in them may stand there."""
    path: Path | None
    sha256: str | None
    """Hex digest that the bytes, before any unpacking, must have; None where nobody knows it."""
    headers: tuple[str, ...] = field(default=(), repr=False)
    """Lines that are sent to the address that a user gave, and to no other."""
    files: Files | None = None
    """Of a folder or a pattern, whose ``sha256`` is that of all names and contents."""
    each: tuple[Source, ...] = field(default=(), repr=False)
    """The addresses in the file at ``path``, all of which are fetched."""

    @property
    def identity(self) -> str:
        """What the cache key uses: ``sha256:<hex>`` where the content is known, else the address without secrets, or a
        digest of several.

        A local copy of a catalogue file therefore has the identity of the catalogue's name.
        """
        if self.each:
            together = "\n".join(one.identity for one in self.each)
            return f"addresses:{hashlib.sha256(together.encode('utf-8', 'surrogateescape')).hexdigest()}"
        return f"sha256:{self.sha256}" if self.sha256 else identity(self.addresses[0])

    @property
    def file_name(self) -> str:
        """What the one file is called where it lies, of several nothing; its suffix says whether it is a table."""
        if self.path is not None or not self.addresses:
            return self.path.name if self.path else ""
        return unquote_to_bytes(urlsplit(self.addresses[0]).path.rpartition("/")[2]).decode(errors="replace")

    def looked_at(self) -> Iterator[Path]:
        """The files and folders here that say what the corpus is."""
        if self.files is not None:
            yield from (Path(path) for what, _, path in self.files.walk() if what in ("file", "folder"))
        elif self.path is not None:
            yield self.path


def catalogue() -> dict[str, Corpus]:
    """Every named corpus, in the order of ``corpora.toml``."""
    tables = tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))
    return {
        name: Corpus(
            name=name,
            title=table["title"],
            licence=table["licence"],
            addresses=tuple(table.get("addresses", ())),
            sha256=table.get("sha256"),
            file=table.get("file"),
        )
        for name, table in tables.items()
    }


def local(corpus: str) -> Path | None:
    """The file that an address of this machine names, ``file:///home/me/caf%E9.txt`` for one; None for any other.

    So a path is written down that is not UTF-8.
    """
    if not corpus.startswith("file:///"):
        return None
    return Path(os.fsdecode(unquote_to_bytes(os.fsencode(corpus.removeprefix("file://")))))


def resolve(corpus: str, headers: Iterable[str] = (), *, once: bool = False) -> Source:
    """Find what ``corpus`` means. Of local files the digest is found out; nothing is fetched.

    A catalogue name wins over a local file of that name: ``./sample`` means the file. A folder or a pattern of paths
    means its files, and a file ``*.urls`` the addresses in it. ``-`` is standard input, which is read when it is meant
    first. ``headers`` are for an address. A pipe that has a name is read by whoever needs it only
    ``once``, and refused otherwise.
    Raises CorpusError for an unusable address and for a file that is missing or cannot be read.
    """
    entry = catalogue().get(corpus)
    if entry is not None and entry.file is None:
        return Source(corpus, entry.addresses, None, entry.sha256)
    if entry is not None and entry.file is not None:
        path = CATALOGUE.with_name(entry.file)
        if not path.exists():
            raise CorpusError(
                f"the packaged corpus {corpus!r} is missing from {str(path)!r}; install the project again"
            )
        return _local(corpus, path)
    opened = spool.number(corpus)
    if opened is not None:
        name = "standard input" if opened == 0 else corpus
        return _local(name, spool.spooled(name, opened, MAX_BYTES))
    if not is_address(corpus):
        return _local(corpus, Path(corpus), tuple(headers), once=once)
    if here := local(corpus):
        return _local(corpus, here, tuple(headers))
    scheme = corpus.partition("://")[0]
    if scheme.lower() not in ("http", "https"):
        raise CorpusError(
            f"corpus {written(corpus)!r} has the scheme {scheme}://, but only http:// and https:// can be fetched; "
            f"{fetching(corpus)}"
        )
    check(corpus)
    return Source(written(corpus), (corpus,), None, None, tuple(headers))


def content(path: Path | str) -> Iterator[tuple[bytes, int]]:
    """The bytes of a local file in chunks, each with how many there will be: as many as it has when this begins.

    One that grows, or one of the system's that has no end, would keep whoever reads it for ever.

    Raises:
        OSError: a file that cannot be read.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe by now is not waited for
        size = left = os.fstat(file.fileno()).st_size
        while chunk := file.read(min(left, CHUNK)):
            yield chunk, size
            left -= len(chunk)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for chunk, _ in content(path):
        digest.update(chunk)
    return digest.hexdigest()


def _local(name: str, path: Path, headers: tuple[str, ...] = (), *, once: bool = False) -> Source:
    try:
        path = path.expanduser()
        if is_pattern(str(path)) and not os.path.lexists(path):
            return _several(name, path)
        if once and path.is_fifo():
            path = spool.piped(name, path, MAX_BYTES)
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise CorpusError(_nothing_called(name)) from None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no such ~user; ValueError: a NUL in the path
        raise CorpusError(f"the corpus file {name!r} cannot be used: {_reason(error)}") from None
    if stat.S_ISDIR(found.st_mode):
        return _several(name, path)
    if not stat.S_ISREG(found.st_mode):
        raise CorpusError(f"the corpus {name!r} is not a regular file; save its text to a file and give that path")
    if found.st_size > MAX_BYTES:
        raise CorpusError(
            f"the corpus file {name!r} has {found.st_size:,} bytes, more than the {MAX_BYTES:,} that a corpus may have:"
            " give a part of it"
        )
    try:
        if path.suffix.lower() == urls.SUFFIX:
            each = tuple(Source(written(one), (one,), None, None, headers) for one in urls.read(name, path))
            return Source(name, (), path, None, headers, each=each)
        digest = cache.digest(path, _sha256)
    except OSError as error:
        raise CorpusError(f"the corpus file {name!r} cannot be read: {_reason(error)}") from None
    return Source(name, (), path, digest)


def _several(name: str, path: Path) -> Source:
    files = Files.of(_plain(name), path)
    if not files.root.is_dir():
        raise CorpusError(_nothing_called(name))
    return Source(name, (), None, files.identity(MAX_BYTES, _sha256), files=files)


def _plain(name: str) -> str:
    """A name without what is secret in it, if it should be an address without its beginning."""
    return written(f"http://{name}").removeprefix("http://") if "?" in name or ":" in name else name


def _nothing_called(name: str) -> str:
    names = list(catalogue())
    name = _plain(name)
    if "/" in name or "\\" in name:
        return f"there is no corpus file {name!r}; check the path"
    close = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return (
        f"no corpus or file is called {name!r}{hint} "
        f"give a name of the catalogue ({', '.join(names)}), an http(s) address or the path of a text file"
    )


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
