"""How training went, epoch by epoch: ``history.arrow``, an Arrow IPC file with one record batch.

Where `train.max_tokens` ends a training, its parts stand here for epochs.

| column | |
|---|---|
| `epoch` | int32, counted from 1 |
| `train_loss` | mean over the epoch's minibatches, nats per token, each with the weights and the dropout of its step |
| `train_perplexity` | exp(`train_loss`) |
| `valid_loss` | of the averaged weights over the validation split, nats per token; null where that has fewer than two |
| `valid_perplexity` | exp(`valid_loss`) |
| `learning_rate` | of the epoch's last step |
| `grad_norm_mean`, `grad_norm_max` | of the gradients' L2 norms before clipping |

All but the first are float64.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from data.errors import StoreError
from data.tables import arrow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COLUMNS = [
    *("epoch", "train_loss", "train_perplexity", "valid_loss", "valid_perplexity", "learning_rate"),
    *("grad_norm_mean", "grad_norm_max"),
]


def write(path: Path, columns: Mapping[str, Sequence[float]]) -> None:
    """Write the columns but ``epoch``, in the order they are given in; one value per epoch, not-a-number for null."""
    import pyarrow as pa

    epochs = max(map(len, columns.values()), default=0)
    arrays = {"epoch": pa.array(range(1, epochs + 1), pa.int32())}
    for name, values in columns.items():
        arrays[name] = pa.array(values, pa.float64(), from_pandas=True)  # not a number becomes null
    batch = pa.record_batch(arrays)
    with pa.OSFile(os.fsencode(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def read(path: Path) -> dict[str, list[Any]]:
    """Column → its values, one per epoch; None for null.

    Raises:
        StoreError: no such file, or none that holds a history.
    """
    import pyarrow as pa

    try:
        kinds = [pa.int32(), *[pa.float64()] * (len(COLUMNS) - 1)]
        batch = arrow.batch(path, lambda schema: (schema.names, schema.types) == (COLUMNS, kinds))
        if not batch.num_rows or batch.column("epoch").to_pylist() != [*range(1, batch.num_rows + 1)]:
            raise ValueError("its epochs are not counted from 1")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{path} is no history of a training that can be read ({error}): train again") from None
    columns: dict[str, list[Any]] = batch.to_pydict()
    return columns
