"""A disk in memory, which knows what a power cut may take: the answers to all that `data.store.kernel` asks.

A disk is two pictures of the same files: what processes see, and what would be there after a power cut whatever
happens to the changes between the two. A change is the names that one call sets or removes at once, or the bytes of one
write. A sync of a folder makes the changes of its names last, and those before them under the same names; a sync of a
file makes its bytes last. Most file systems promise more: here a file whose bytes are on the disk may have no name
there, and of two changes in turn the second may last and the first be lost.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple, TypeAlias, TypeVar
from unittest.mock import patch

from data.store import kernel

Image: TypeAlias = dict[int, "dict[str, int] | bytes"]
"""Inode → a folder's names and their inodes, or a file's bytes; the disk's root has the number 0."""
Names: TypeAlias = tuple[tuple[int, str, int | None], ...]
"""What one call does to names: a folder, a name in it, and the inode that has it then."""

Result = TypeVar("Result")


class Bytes(NamedTuple):
    """One write to a file."""

    file: int
    offset: int
    content: bytes


Change: TypeAlias = "Names | Bytes"


class Stat(NamedTuple):
    """What is asked of a ``stat_result``."""

    st_mode: int
    st_ino: int
    st_dev: int
    st_nlink: int
    st_size: int
    st_mtime_ns: int

    @property
    def st_mtime(self) -> float:
        return self.st_mtime_ns / 1e9


@dataclass
class Handle:
    """An open file or folder of a process."""

    inode: int
    path: str
    process: object
    offset: int = 0
    lock: int = 0


@dataclass
class Disk:
    """A disk, with what has happened to it since it was mounted.

    Attributes:
        seen: what processes see.
        kept: what is there after a power cut, without `pending`.
        pending: changes that are not synced, the oldest first.
        times: inode → when it was last changed, nanoseconds.
        before: called with the name and the path of each call, where it is asked by one, before it is answered; it may
            raise what that call shall raise.
        waits: called while a lock is another's, until it is free.
        freed: called when one was given up.
        process: who is asking.
        exchanges: whether two folders can be swapped.
        unread: files that nobody has a reason to read.
        version: grows with each change and each sync.
    """

    seen: Image = field(default_factory=lambda: {0: {}})
    kept: Image = field(default_factory=lambda: {0: {}})
    pending: list[Change] = field(default_factory=list)
    times: dict[int, int] = field(default_factory=dict)
    before: Callable[[str, Any], None] = lambda call, path: None
    waits: Callable[[], None] | None = None
    freed: Callable[[], None] = lambda: None
    process: object = None
    exchanges: bool = True
    clock: int = 1_800_000_000 * 10**9
    unread: frozenset[int] = frozenset()
    version: int = 0
    handles: dict[int, Handle] = field(default_factory=dict)
    _inodes: int = 0
    _handles: int = 1 << 20

    # --- what a power cut leaves

    def image(self, choices: Sequence[int]) -> Image:
        """What is there after a power cut.

        Args:
            choices: for each pending change whether it lasts, 0 or 1; of a write also 2, for its first half.
        """
        image = copied(self.kept)
        for change, chosen in zip(self.pending, choices, strict=True):
            if chosen:
                _apply(image, change if chosen == 1 else _half(change))
        return image

    def choices(self) -> Iterator[tuple[int, ...]]:
        """Every way in which a power cut may come out."""
        return product(*map(ways, self.pending))

    def settle(self) -> None:
        """Let everything last."""
        self.kept = copied(self.seen)
        self.pending = []

    def mount(self, image: Image) -> None:
        """Put another image in the place of all that is here, nobody using it."""
        self.seen, self.kept, self.pending = image, copied(image), []
        self.handles, self.times, self._inodes = {}, dict.fromkeys(image, self.clock), max(image)

    def put_for_good(self, folder: str, name: str, content: bytes) -> None:
        """Put what lasts at once into a folder at the root; it is another inode each time."""
        self._inodes += 1
        self.version += 1
        for image in (self.seen, self.kept):
            root = image[0]
            assert isinstance(root, dict)
            names = image[root[folder]]
            assert isinstance(names, dict)
            names[name], image[self._inodes] = self._inodes, content

    def content(self, path: Any) -> bytes:
        """Of a file, at once.

        Raises:
            OSError: there is none.
        """
        return self._bytes(self._there(path))

    def quietly(self, what: Callable[..., Result], *arguments: Any) -> Result:
        """Ask for something of which nobody takes note."""
        before, self.before = self.before, lambda call, path: None
        try:
            return what(*arguments)
        finally:
            self.before = before

    def _bytes(self, inode: int) -> bytes:
        assert inode not in self.unread, "what a killed process left is read"
        node = self.seen[inode]
        if isinstance(node, dict):
            raise _error(errno.EISDIR)
        return node

    def _change(self, change: Change) -> None:
        self.version += 1
        _apply(self.seen, change)
        self.pending.append(change)
        for inode in {change.file} if isinstance(change, Bytes) else {folder for folder, _, _ in change}:
            self._touch(inode)

    def _touch(self, inode: int) -> None:
        self.clock += 1_000_000
        self.times[inode] = self.clock

    # --- what the kernel is asked

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        self.before("open", path)
        folder, name, inode = self._find(path)
        if inode is None:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT, path)
            inode = self._made(folder, name, b"")
        elif flags & os.O_EXCL:
            raise _error(errno.EEXIST, path)
        elif flags & (os.O_WRONLY | os.O_RDWR) and isinstance(self.seen[inode], dict):
            raise _error(errno.EISDIR, path)
        self._handles += 1
        self.handles[self._handles] = Handle(inode, os.fspath(path), self.process)
        return self._handles

    def close(self, handle: int) -> None:
        one = self.handles.pop(handle, None)
        if one and one.lock:
            self.freed()

    def read(self, handle: int, size: int) -> bytes:
        self.before("read", None)
        one = self.handles[handle]
        content = self._bytes(one.inode)
        piece = content[one.offset : one.offset + size]
        one.offset += len(piece)
        return piece

    def lseek(self, handle: int, offset: int, whence: int) -> int:
        self.before("lseek", None)
        one = self.handles[handle]
        one.offset = offset + (0, one.offset, len(self.seen[one.inode]))[whence]
        return one.offset

    def write(self, handle: int, content: Any) -> int:
        self.before("write", None)
        one = self.handles[handle]
        self._change(Bytes(one.inode, one.offset, bytes(content)))
        one.offset += len(content)
        return len(content)

    def fsync(self, handle: int) -> None:
        self.before("fsync", None)
        self.last(self.handles[handle].inode)

    def last(self, inode: int) -> None:
        """Make the changes of a file or a folder last."""
        names = set[tuple[int, str]]()
        left: list[Change] = []
        lasting: list[Change] = []
        for change in reversed(self.pending):
            if isinstance(change, Bytes):
                lasts = change.file == inode
            else:
                touched = {(folder, name) for folder, name, _ in change}
                lasts = bool(touched & names) or any(folder == inode for folder, _ in touched)
                names |= touched if lasts else set()
            (lasting if lasts else left).append(change)
        for change in reversed(lasting):
            _apply(self.kept, change)
            self.version += 1
        self.pending = left[::-1]

    def fstat(self, handle: int) -> Stat:
        self.before("fstat", None)
        return self._stat(self.handles[handle].inode)

    def stat(self, path: Any) -> Stat:
        self.before("stat", path)
        return self._stat(self._there(path))

    lstat = stat

    def listdir(self, path: Any) -> list[str]:
        self.before("listdir", path)
        node = self.seen[self._there(path)]
        if isinstance(node, bytes):
            raise _error(errno.ENOTDIR, path)
        return [*node]

    def utime(self, path: Any) -> None:
        self.before("utime", None if isinstance(path, int) else path)
        self._touch(self.handles[path].inode if isinstance(path, int) else self._there(path))

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        self.before("mkdir", path)
        folder, name, inode = self._find(path)
        if inode is not None:
            raise _error(errno.EEXIST, path)
        self._made(folder, name, {})

    def rename(self, one: Any, other: Any) -> None:
        self.before("rename", one)
        folder, name, inode = self._find(one)
        into, new, there = self._find(other)
        if inode is None:
            raise _error(errno.ENOENT, one)
        if (
            there is not None
            and isinstance(found := self.seen[there], dict)
            and (found or isinstance(self.seen[inode], bytes))
        ):
            raise _error(errno.ENOTEMPTY if isinstance(self.seen[inode], dict) else errno.EISDIR, other)
        self._change(((folder, name, None), (into, new, inode)))

    def exchange(self, one: Any, other: Any) -> None:
        self.before("exchange", one)
        folder, name, inode = self._find(one)
        into, new, there = self._find(other)
        if not self.exchanges:
            raise _error(errno.EINVAL, other)
        if inode is None or there is None:
            raise _error(errno.ENOENT, other)
        self._change(((folder, name, there), (into, new, inode)))

    def unlink(self, path: Any) -> None:
        self.before("unlink", path)
        folder, name, inode = self._find(path)
        if inode is None:
            raise _error(errno.ENOENT, path)
        if isinstance(self.seen[inode], dict):
            raise _error(errno.EISDIR, path)
        self._change(((folder, name, None),))

    def _rmdir(self, path: str) -> None:
        self.before("rmdir", path)
        folder, name, inode = self._find(path)
        if inode is None:
            raise _error(errno.ENOENT, path)
        if self.seen[inode]:
            raise _error(errno.ENOTEMPTY, path)
        self._change(((folder, name, None),))

    def rmtree(self, path: Any, ignore_errors: bool = False) -> None:
        """Call by call, as ``shutil.rmtree`` does it."""
        path, ignored = os.fspath(path), (OSError,) if ignore_errors else ()
        with suppress(*ignored):
            for name in self.listdir(path):
                with suppress(*ignored):
                    if isinstance(self.seen[self._there(f"{path}/{name}")], dict):
                        self.rmtree(f"{path}/{name}", ignore_errors)
                    else:
                        self.unlink(f"{path}/{name}")
            self._rmdir(path)

    def flock(self, handle: int, operation: int) -> None:
        self.before("flock", None)
        one, wanted = self.handles[handle], operation & ~fcntl.LOCK_NB
        while any(
            other.inode == one.inode and other is not one and other.lock and fcntl.LOCK_EX in (other.lock, wanted)
            for other in self.handles.values()
        ):
            if operation & fcntl.LOCK_NB:
                raise _error(errno.EWOULDBLOCK)
            assert self.waits is not None, "a lock is waited for that nobody will ever free"
            self.waits()
        if one.lock:
            self.freed()
        one.lock = wanted

    def killed(self, process: object) -> None:
        """A process has ended, however it did."""
        self.handles = {number: one for number, one in self.handles.items() if one.process is not process}

    # --- how it is done

    def _find(self, path: Any) -> tuple[int, str, int | None]:
        """The folder in which a path ends, the name there, and the inode that has it."""
        *above, name = os.fspath(path)[1:].split("/")
        folder = 0
        for part in above:
            node = self.seen[folder]
            if isinstance(node, bytes):
                raise _error(errno.ENOTDIR, path)
            if part not in node:
                raise _error(errno.ENOENT, path)
            folder = node[part]
        node = self.seen[folder]
        if isinstance(node, bytes):
            raise _error(errno.ENOTDIR, path)
        return folder, name, node.get(name) if name else 0

    def _there(self, path: Any) -> int:
        inode = self._find(path)[2]
        if inode is None:
            raise _error(errno.ENOENT, path)
        return inode

    def _made(self, folder: int, name: str, node: dict[str, int] | bytes) -> int:
        self._inodes = inode = self._inodes + 1
        self.seen[inode], self.kept[inode] = node, {} if isinstance(node, dict) else b""
        self._touch(inode)
        self._change(((folder, name, inode),))
        return inode

    def _stat(self, inode: int) -> Stat:
        node = self.seen[inode]
        mode = stat.S_IFDIR if isinstance(node, dict) else stat.S_IFREG
        return Stat(mode, inode, 1, 1, len(node), self.times.get(inode, 0))


def ways(change: Change) -> tuple[int, ...]:
    """What may become of a change in a power cut, see `Disk.image`."""
    return (0, 1, 2) if isinstance(change, Bytes) and len(change.content) > 1 else (0, 1)


def copied(image: Image) -> Image:
    """An image of its own."""
    return {inode: node if isinstance(node, bytes) else {**node} for inode, node in image.items()}


@contextmanager
def used(disk: Disk) -> Iterator[Disk]:
    """While this holds, the store lives on this disk."""
    with patch.multiple(kernel, **{call: getattr(disk, call) for call in kernel.CALLS}):
        yield disk


def tree(image: Image, inode: int = 0) -> Any:
    """All that can be found in an image, which is equal and has one hash where it is the same."""
    node = image[inode]
    return node if isinstance(node, bytes) else tuple((name, tree(image, node[name])) for name in sorted(node))


def files(image: Image, inode: int) -> Iterator[int]:
    """The inodes of all files below a folder."""
    node = image[inode]
    if isinstance(node, bytes):
        yield inode
    else:
        for one in node.values():
            yield from files(image, one)


def _apply(image: Image, change: Change) -> None:
    if isinstance(change, Bytes):
        before = image[change.file]
        assert isinstance(before, bytes)
        until = before[: change.offset].ljust(change.offset, b"\0")  # a hole, where an earlier write was lost
        image[change.file] = until + change.content + before[change.offset + len(change.content) :]
        return
    for folder, name, inode in change:
        names = image[folder]
        assert isinstance(names, dict)
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def _half(change: Change) -> Change:
    assert isinstance(change, Bytes)
    return change._replace(content=change.content[: len(change.content) // 2])


def _error(number: int, path: Any = None) -> OSError:
    return OSError(number, os.strerror(number), os.fspath(path)) if path else OSError(number, os.strerror(number))
