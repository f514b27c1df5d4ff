"""Complete, resumable training state, whatever the engine: one safetensors file per checkpoint, named by its position.

A checkpoint appears under its name whole or not at all, and it carries a digest, so that a damaged one is known for
what it is and the one before it is taken.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data.errors import StoreError
from data.store.files import replace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[np.float32]]

KEPT = 2
"""Checkpoints that are kept at or before the newest position: the newest, and one in case that is damaged."""
_SUFFIX = ".safetensors"
_KINDS = ("parameters", "averages", "best", "moments", "state")
"""The fields that hold arrays by name."""


@dataclass(frozen=True)
class Checkpoint:
    """Where training stands, with all that decides how it goes on."""

    epoch: int
    """Epochs that are complete."""
    step: int
    """Minibatches done in the epoch after them."""
    steps: int
    """Minibatches done in all."""
    parameters: Arrays
    averages: Arrays
    """The parameters' running average."""
    best: Arrays
    """That average as it was after the best epoch; nothing where the last epoch's is wanted."""
    moments: Arrays
    """What the optimizer keeps."""
    state: Arrays
    """The recurrent state."""
    generator: Mapping[str, Any]
    """The minibatches' bit generator as it was at the start of that epoch."""
    totals: Mapping[str, float]
    """What that epoch has summed up so far."""
    history: npt.NDArray[np.float64]
    """One row per complete epoch; the columns are the training loop's."""


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Put a checkpoint into a folder, made if need be, and remove the oldest ones before it.

    Raises:
        StoreError: a disk that cannot take it.
    """
    from safetensors.numpy import save

    tensors: dict[str, npt.NDArray[Any]] = {"history": checkpoint.history}
    for kind in _KINDS:
        tensors |= {f"{kind}/{name}": array for name, array in getattr(checkpoint, kind).items()}
    facts = {"steps": checkpoint.steps, "generator": checkpoint.generator, "totals": checkpoint.totals}
    # One entry, because the order of several is not fixed.
    metadata = {"checkpoint": json.dumps({**facts, "sha256": _digest(tensors, facts)}, sort_keys=True)}
    path = folder / f"{checkpoint.epoch:06}-{checkpoint.step:06}{_SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for half in folder.glob("*.new"):  # of a process that was killed while it wrote
            half.unlink()
        replace(path, save(tensors, metadata))
        at_or_before = [
            other for position, other in _positions(folder) if position <= (checkpoint.epoch, checkpoint.step)
        ]
        for old in at_or_before[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"the checkpoint {path} cannot be written ({error.strerror}): make room there") from error


def latest(folder: Path, epochs: int) -> Checkpoint | None:
    """The newest sound checkpoint at or before the end of that many epochs, None when there is none.

    A damaged one is passed over with a warning.
    """
    from safetensors import SafetensorError

    for position, path in reversed(_positions(folder)):
        if position > (epochs, 0):
            continue
        try:
            return _read(path, position)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            logger.warning("the checkpoint %s is damaged (%s): going on from the one before it", path, error)
    return None


def _read(path: Path, position: tuple[int, int]) -> Checkpoint:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        facts = json.loads(file.metadata()["checkpoint"])
    if facts.pop("sha256") != _digest(tensors, facts):
        raise ValueError("its content does not have the digest that it names")

    def under(kind: str) -> Arrays:
        prefix = f"{kind}/"
        return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}

    return Checkpoint(
        *position,
        parameters=under("parameters"),
        averages=under("averages"),
        best=under("best"),
        moments=under("moments"),
        state=under("state"),
        history=tensors["history"],
        **facts,
    )


def _positions(folder: Path) -> list[tuple[tuple[int, int], Path]]:
    """The folder's checkpoints, oldest first."""
    found = []
    for path in folder.glob(f"*-*{_SUFFIX}"):
        epoch, _, step = path.stem.partition("-")
        if epoch.isdecimal() and step.isdecimal():
            found.append(((int(epoch), int(step)), path))
    return sorted(found)


def _digest(tensors: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
