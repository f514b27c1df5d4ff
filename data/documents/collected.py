"""The documents of many files, which lie here or at addresses, and what is to be noted of where they came from."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.corpus.catalogue import CHUNK, content
from data.corpus.fetch import Patience, fetch, rate
from data.documents.files import Digest, Files
from data.store import cache

if TYPE_CHECKING:
    from data.corpus.catalogue import Source
    from data.documents.reader import Document, Reader
    from data.progress import Progress

logger = logging.getLogger(__name__)


@dataclass
class Collected:
    """What was read so far of the files of a source."""

    source: Source
    reader: Reader
    progress: Progress
    size: int = 0
    """Bytes as they lie or came."""
    left_out: int = 0
    """Files of a folder that are no text by their suffix, and links that lead away."""
    digest: Digest = field(default_factory=Digest)

    def of_files(self, files: Files) -> Iterator[Document]:
        """The documents of files here, in the order of their names.

        Raises:
            CorpusError: one that is no text, or is another than when its digest was found out.
        """
        started, number = time.monotonic(), 0
        for what, name, path in files.walk():
            if what != "file":
                self.left_out += what != "folder"
                continue
            before, sha256 = cache.stamp(path), hashlib.sha256()
            chunks = self._read(files, name, path, sha256)
            for document in self.reader.within(name, chunks):
                number += 1
                yield document
                self.progress(self.size, 0, f"{number:,} documents · {rate(self.size, started)}")
            for _ in chunks:  # what nobody asked for, behind the end of an archive
                pass
            if cache.stamp(path) != before:
                raise files.changed(name)
            self.digest.add(name, sha256.hexdigest())
        if self.digest.hexdigest() != self.source.sha256:
            raise files.changed()
        if self.left_out:
            logger.info(
                "%s: files that are left out, by a suffix that no text has, or as links that lead away: %s",
                self.source.name,
                f"{self.left_out:,}",
            )

    def _read(self, files: Files, name: str, path: str, sha256: hashlib._Hash) -> Iterator[bytes]:
        try:
            for chunk, _ in content(path):
                sha256.update(chunk)
                self.size += len(chunk)
                yield chunk
        except OSError as error:
            raise files.unreadable(name, error) from None

    def of_addresses(self, raw: Path, patience: Patience, limit: int) -> Iterator[Document]:
        """The documents at the source's addresses, one after the other.

        Args:
            raw: where the bytes of each are for as long as it is read.
            patience: with each address.
            limit: the most bytes of all.

        Raises:
            TransientError: a network was at fault and another try may help.
            CorpusError: another try will not help.
        """
        for number, one in enumerate(self.source.each, 1):
            logger.info("%s: %d of %d, %s", self.source.name, number, len(self.source.each), one.name)
            fetched = fetch(one, raw, self.progress, patience, limit - self.size)
            assert fetched  # for nothing is known
            self.size += raw.stat().st_size
            with raw.open("rb") as file:
                yield from self.reader.within(one.name, iter(lambda: file.read(CHUNK), b""), one.file_name)
            raw.unlink()
            self.digest.add(one.name, fetched.sha256)

    def record(self) -> dict[str, Any]:
        """What is noted of where all this came from."""
        files, path = self.source.files, self.source.path
        if files is not None:
            called = "/".join((os.path.basename(os.path.abspath(files.root)), *files.pattern))  # noqa: PTH100, PTH119
        else:
            called = path.name if path else self.source.name
        return {
            "file": called.encode(errors="backslashreplace").decode(),
            "sha256": self.digest.hexdigest(),
            "bytes": self.size,
            "files": self.digest.number,
            **({"left_out": self.left_out} if self.left_out else {}),
        }
