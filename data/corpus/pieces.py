"""Pieces of a text on disk, so that it has to be read, normalised and split only once: Arrow streams in one file."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from data.corpus.level import Piece


def keep(pieces: Iterable[Piece], path: Path) -> Iterator[int]:
    """Write pieces to a file, code points in the smallest type that holds them; yield each one's number of tokens."""
    import pyarrow as pa

    with pa.OSFile(os.fsencode(path), "wb") as file:
        for schema, batches in itertools.groupby(map(_batch, pieces), lambda batch: batch.schema):
            with pa.ipc.new_stream(file, schema) as stream:
                for batch in batches:
                    stream.write_batch(batch)
                    yield len(batch)


def kept(path: Path, limit: int) -> Iterator[Piece]:
    """The first ``limit`` tokens of the pieces in a file, a piece at a time."""
    import pyarrow as pa

    with pa.memory_map(os.fsencode(path)) as file:
        while file.tell() < file.size():
            for batch in pa.ipc.open_stream(file):
                if limit <= 0:
                    return
                piece = batch.column(0)[:limit]
                limit -= len(piece)
                yield piece if pa.types.is_dictionary(piece.type) else piece.to_numpy()


def _batch(piece: Piece) -> pa.RecordBatch:
    import pyarrow as pa

    if isinstance(piece, np.ndarray) and piece.dtype != np.uint8:
        piece = piece.astype(np.min_scalar_type(piece.max()), copy=False)
    return pa.record_batch([piece], names=["token"])
