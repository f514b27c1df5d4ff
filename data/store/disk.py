"""What a disk says that is full, that fails or that is somebody else's, as the sentence that a user is told."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import StoreError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""There is no room."""
ROOM = "free some (`rnnlm gc --checkpoints`, or `rnnlm gc --days 7`)"
"""What helps then."""
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_BROKEN = (errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN)
"""It fails, or is gone. Such an error may come from a descriptor, and then names no file."""


@contextmanager
def told(root: Path) -> Iterator[None]:
    """While this holds, what goes wrong with the store in a folder is a `StoreError`; the stages' own files are not its
    business."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StoreError(
                f"no space is left for the store {root}: {ROOM} and run again; what was published before is untouched"
            ) from error
        if error.errno in _TOO_MANY:
            raise StoreError(
                f"too many files are open to use the store {root}: raise the limit (`ulimit -n 4096`) and run again"
            ) from error
        path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        if Path(path).is_relative_to(root) or root.is_relative_to(path) if path else error.errno in _BROKEN:
            why = "a link is not written through" if error.errno == errno.ELOOP else error.strerror
            raise StoreError(
                f"the store {root} cannot be used ({why}{path and f': {path}'}): "
                "name a folder of your own with --store or RNNLM_STORE"
            ) from error
        raise
