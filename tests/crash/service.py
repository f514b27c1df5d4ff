"""The objects that machines share, in memory beside a disk: what `data.store.objects` asks of a service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TypeVar

from data.errors import RemoteError
from data.store.objects import Listed, Object, Tag
from data.store.remote import Remote
from tests.crash.disk import Disk

FOLDER = "remote"
"""Its name at the disk's root, where it lies so that it is in each image; what is put there lasts at once."""
Result = TypeVar("Result")


@dataclass
class Service:
    """Objects by name; each verb may fail before it is done, and after that."""

    disk: Disk
    address: str = "s3://bucket/store"

    def read(self, name: str) -> Object | None:
        return self._asked("read", lambda: self._object(name))

    def put(self, name: str, content: IO[bytes]) -> None:
        self._asked("put", lambda: self._put(name, content.read()))

    def piece(self, name: str, start: int, stop: int) -> bytes | None:
        found = self._asked("piece", lambda: self._object(name))
        return found.content[start:stop] if found and len(found.content) >= stop else None

    def swap(self, name: str, content: bytes, tag: Tag | None) -> bool:
        def swap() -> bool:
            there = self._object(name)
            if (there.tag if there else None) != tag:
                return bool(there and there.content == content)
            self._put(name, content)
            return True

        return self._asked("swap", swap)

    def listed(self, prefix: str = "") -> Iterator[Listed]:
        names = self._asked("list", lambda: [name for name in self._names if name.startswith(prefix)])
        return iter([Listed(name, 0, datetime.now(UTC)) for name in names])

    @property
    def _names(self) -> dict[str, int]:
        root = self.disk.seen[0]
        assert isinstance(root, dict)
        names = self.disk.seen[root[FOLDER]]
        assert isinstance(names, dict)
        return names

    def _object(self, name: str) -> Object | None:
        inode = self._names.get(name)
        content = b"" if inode is None else self.disk.seen[inode]
        assert isinstance(content, bytes)
        return None if inode is None else Object(content, {"e_tag": str(inode)})

    def _put(self, name: str, content: bytes) -> None:
        self.disk.put_for_good(FOLDER, name, content)

    def _asked(self, verb: str, do: Callable[[], Result]) -> Result:
        try:
            self.disk.before(f"remote {verb}", None)
            result = do()
            self.disk.before(f"remote {verb}, answered", None)
        except OSError as error:
            raise RemoteError(f"the remote {self.address} does not answer ({error.strerror})") from None
        return result


def remote(disk: Disk) -> Remote | None:
    """The remote beside a disk; None where there is none."""
    root = disk.seen[0]
    assert isinstance(root, dict)
    if FOLDER not in root:
        return None
    found = Remote.__new__(Remote)
    found.objects = Service(disk)  # type: ignore[assignment]
    found.address, found.writes, found.answers, found.spoilt = found.objects.address, True, True, {}
    return found
