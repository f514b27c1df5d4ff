"""Pieces of a text on disk, so that it has to be read, normalised and split only once: each an Arrow stream."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from data.corpus.level import Piece


def keep(pieces: Iterable[Piece], path: Path) -> Iterator[int]:
    """Write pieces to a file, code points in the smallest type that holds them; yield each one's number of tokens."""
    import pyarrow as pa

    with path.open("wb") as file:
        for piece in pieces:
            if isinstance(piece, np.ndarray) and piece.dtype != np.uint8:
                piece = piece.astype(np.min_scalar_type(piece.max(initial=0)), copy=False)
            batch = pa.record_batch([piece], names=["token"])
            with pa.ipc.new_stream(file, batch.schema) as stream:
                stream.write_batch(batch)
            yield len(piece)


def kept(path: Path, limit: int) -> Iterator[Piece]:
    """The first ``limit`` tokens of the pieces in a file, a piece at a time."""
    import pyarrow as pa

    with pa.memory_map(os.fsencode(path)) as file:
        while limit > 0 and file.tell() < file.size():
            with pa.ipc.open_stream(file) as stream:
                column = stream.read_all().column(0).combine_chunks()
            piece = column[:limit]
            limit -= len(piece)
            yield piece if pa.types.is_dictionary(piece.type) else piece.to_numpy()
