"""All that a training needs to go on, whatever the engine: one safetensors file per checkpoint, named by its position.

A checkpoint appears under its name whole or not at all, and it carries a digest, so that a damaged one is known for
what it is and the one before it is taken.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data.errors import StoreError
from data.store import kernel
from data.store.files import make, replace
from data.store.reading import known, read
from stages.training.engine import EngineState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from stages.training.engine import Arrays

logger = logging.getLogger(__name__)

FORMAT = 1
"""The newest that there is; what has no number is of the first, and may lack what was the same whatever it trained."""
FRACTION = 0.02
"""Of the time, at most, that checkpoints may cost."""
FIRST = 0.5
"""Seconds before the first one of a process: what came before that is soon done again."""
KEPT = 2
"""Checkpoints that are kept at or before the newest position: the newest, and one in case that is damaged."""
_SUFFIX = ".safetensors"
FIGURES = ("train_loss", "valid_loss", "learning_rate", "grad_norm_mean", "grad_norm_max")
"""What is kept of each epoch: columns of ``history.arrow``, see `data.tables.history`."""


@dataclass
class Totals:
    """Sums over the minibatches of the epoch under way."""

    loss: float = 0.0
    """Nats: of each minibatch its mean loss times its tokens."""
    tokens: int = 0
    grad_norm: float = 0.0
    grad_norm_max: float = 0.0
    """The largest, not a sum."""


@dataclass
class TrainState:
    """How far a training has come; with the engine's state, all that decides how it goes on."""

    generator: Mapping[str, Any]
    """The minibatches' bit generator as it was at the start of the pass under way: what that pass draws, a resumed
    training draws again."""
    epoch: int = 0
    """Epochs that are complete."""
    step: int = 0
    """Minibatches done in the epoch after them."""
    index: int = 0
    """Minibatches done in the pass over the split that is under way: other than ``step`` only where an epoch is none,
    see `TrainConfig.max_tokens`."""
    steps: int = 0
    """Minibatches done in all."""
    tokens: int = 0
    """Tokens trained on in all."""
    totals: Totals = field(default_factory=Totals)
    history: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in FIGURES})
    """Each of `FIGURES`, one value per complete epoch; not a number where there is none."""
    best: Arrays = field(default_factory=dict)
    """The average as it was after the best epoch; nothing where the last epoch's is wanted."""


class Policy:
    """When a checkpoint is worth what it costs: writing them takes at most `FRACTION` of the time."""

    def __init__(self) -> None:
        self._due = time.monotonic() + FIRST

    def due(self) -> bool:
        """Whether the last one, and what it cost, is long enough ago."""
        return time.monotonic() >= self._due

    @contextmanager
    def measured(self) -> Iterator[None]:
        """While this holds, a checkpoint is made and written."""
        began = time.monotonic()
        yield
        ended = time.monotonic()
        self._due = ended + (ended - began) / FRACTION


def write(folder: Path, train: TrainState, engine: EngineState) -> None:
    """Put a checkpoint into a folder, made if need be, and remove the oldest ones before it.

    The file holds ``history`` (float64, (epochs, figures)) and the arrays under ``parameters/``, ``averages/``,
    ``best/``, ``moments/`` and ``state/``; its metadata the rest, and a digest over everything.

    Raises:
        StoreError: a disk that cannot take it.
    """
    from safetensors.numpy import save

    tensors: dict[str, npt.NDArray[Any]] = {
        "history": np.stack([np.array(values) for values in train.history.values()], axis=1)
    }
    kinds = {
        "parameters": engine.parameters,
        "averages": engine.averages,
        "best": train.best,
        "moments": engine.moments,
        "state": engine.recurrent,
    }
    for kind, arrays in kinds.items():
        tensors |= {f"{kind}/{name}": array for name, array in arrays.items()}
    counts = {"format": FORMAT, "index": train.index, "steps": train.steps, "tokens": train.tokens}
    facts = {**counts, "generator": train.generator, "totals": asdict(train.totals)}
    # One entry, because the order of several is not fixed.
    metadata = {"checkpoint": json.dumps({**facts, "sha256": _digest(tensors, facts)}, sort_keys=True)}
    path = folder / f"{train.epoch:06}-{train.step:06}{_SUFFIX}"
    try:
        make(folder)
        for name in kernel.listdir(folder):
            if name.endswith(".new"):  # of a process that was killed while it wrote
                kernel.unlink(folder / name)
        replace(path, save(tensors, metadata), folder.parents[1])
        at_or_before = [other for position, other in positions(folder) if position <= (train.epoch, train.step)]
        for old in at_or_before[:-KEPT]:
            with suppress(FileNotFoundError):
                kernel.unlink(old)
    except OSError as error:
        raise StoreError(f"the checkpoint {path} cannot be written ({error.strerror}): make room there") from error


def latest(folder: Path, epochs: int) -> tuple[TrainState, EngineState] | None:
    """The newest sound checkpoint at or before the end of that many epochs, None when there is none.

    A damaged one is passed over with a warning.

    Raises:
        FormatError: the newest is a newer version's.
    """
    from safetensors import SafetensorError

    for position, path in reversed(positions(folder)):
        if position > (epochs, 0):
            continue
        try:
            return _read(path, position)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
            logger.warning("the checkpoint %s is damaged (%s): going on from the one before it", path, error)
    return None


def refuse_newer(folder: Path) -> None:
    """See that a folder has no checkpoint that only a newer version could go on with.

    Raises:
        FormatError: it has.
    """
    from safetensors import SafetensorError

    for _, path in positions(folder):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError):
            known(path, _content(path)[1], FORMAT)


def _content(path: Path) -> tuple[dict[str, npt.NDArray[Any]], str]:
    """The arrays of a checkpoint, and the rest as JSON."""
    from safetensors.numpy import load

    content = read(path, inf)
    tensors = load(content)  # which sees whether the header is one
    written: str = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["checkpoint"]
    return tensors, written


def _read(path: Path, position: tuple[int, int]) -> tuple[TrainState, EngineState]:
    tensors, written = _content(path)
    known(path, written, FORMAT)
    facts = json.loads(written)
    if facts.pop("sha256") != _digest(tensors, facts):
        raise ValueError("its content does not have the digest that it names")
    if facts.get("format", 1) != FORMAT:
        raise ValueError(f"it has format {facts['format']!r}")

    def under(kind: str) -> Arrays:
        prefix = f"{kind}/"
        return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}

    epoch, step = position
    index, steps, tokens = facts.get("index", step), facts["steps"], facts.get("tokens", 0)
    totals, history, best = Totals(**facts["totals"]), tensors["history"], under("best")
    figures = [totals.loss, totals.grad_norm, totals.grad_norm_max]
    np.random.PCG64().state = facts["generator"]  # a ValueError where it is none
    if not (
        all(type(count) is int and 0 <= count < 1 << 63 for count in (index, steps, tokens, totals.tokens))
        and all(type(figure) in (int, float) and 0 <= figure < inf for figure in figures)
        and history.dtype == np.float64
        and history.shape == (epoch, len(FIGURES))
        and {*map(_kind, best.items())} <= {*map(_kind, under("averages").items())}
    ):
        raise ValueError("what it says of its training does not fit")
    train = TrainState(
        facts["generator"],
        epoch,
        step,
        index,
        steps,
        tokens,
        totals,
        dict(zip(FIGURES, history.T.tolist(), strict=True)),
        best,
    )
    engine = EngineState(
        parameters=under("parameters"),
        averages=under("averages"),
        moments=under("moments"),
        recurrent=under("state"),
    )
    return train, engine


def _kind(named: tuple[str, npt.NDArray[Any]]) -> tuple[str, Any, tuple[int, ...]]:
    name, array = named
    return name, array.dtype, array.shape


def positions(folder: Path) -> list[tuple[tuple[int, int], Path]]:
    """The folder's checkpoints, oldest first.

    Raises:
        StoreError: a folder that cannot be read.
    """
    found = []
    try:
        names = kernel.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(f"the checkpoints in {folder} cannot be read ({error.strerror}): make it readable") from error
    for name in names:
        epoch, _, step = name.removesuffix(_SUFFIX).partition("-")
        if name.endswith(_SUFFIX) and epoch.isdecimal() and step.isdecimal():
            found.append(((int(epoch), int(step)), folder / name))
    return sorted(found)


def _digest(tensors: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
