"""A training for those who watch it in TensorBoard: each epoch's figures as scalars, a folder for each training.

The folder ``PRESET-KEY`` holds what ``history.arrow`` will, the step an epoch. Of several networks that is their mean,
and ``network-1`` and so on below it hold each one's as it is trained. What is there already stays, with the time at
which it was measured: a training that goes on, or is reused, adds what is missing.
"""

from __future__ import annotations

import logging
import math
import socket
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from data.errors import ConfigError, StoreError
from data.tables import history
from stages.lm import metrics

if TYPE_CHECKING:
    from pathlib import Path

    from data.progress import Watch
    from data.store.artifact import Artifact

    History = Mapping[str, Sequence[float | None]]
    """Column of ``history.arrow`` → a value for each epoch; None or not a number where there is none."""

logger = logging.getLogger(__name__)

TAGS = {
    "loss/train": "train_loss",
    "loss/valid": "valid_loss",
    "learning_rate": "learning_rate",
    "grad_norm/mean": "grad_norm_mean",
    "grad_norm/max": "grad_norm_max",
}
"""Tag → column; beside each loss stands its perplexity."""
SPEED = "tokens_per_second"
"""The tag of what no history holds."""
_FILES = "events.out.tfevents."


class Board:
    """The folder that TensorBoard is pointed at.

    Args:
        folder: is made where there is none.
        name: what the folder of a training begins with.
        networks: of the model that is trained.

    Raises:
        ConfigError: a folder that cannot be written, or no tensorboardX.
    """

    def __init__(self, folder: Path, name: str, networks: int) -> None:
        self._folder, self._name, self._networks = folder, name, networks
        self._failed = False
        try:
            import tensorboardX  # noqa: F401
        except ImportError:
            raise ConfigError(
                "--tensorboard needs tensorboardX, which this project does not bring: `pip install tensorboardX`"
            ) from None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ConfigError(
                f"--tensorboard {folder} cannot be written ({error.strerror}): name a folder that can be"
            ) from None

    def watching(self, key: str, number: int) -> Watch:
        """Who is told of each epoch of the network of that number, from 0 on, in the training of that key."""
        folder = self._of(key)
        events = _Events(folder if self._networks == 1 else folder / f"network-{number + 1}")

        def watch(columns: History, tokens_per_second: float) -> None:
            further = {} if math.isnan(tokens_per_second) else {SPEED: tokens_per_second}
            self._add(events, columns, time.time(), further)

        return watch

    def keep(self, trained: Artifact) -> None:
        """Add what is missing of a training that has ended, now or long ago."""
        try:
            columns = history.read(trained.folder / "history.arrow")
        except StoreError as error:
            logger.warning("%s", error)
            return
        ended = datetime.fromisoformat(trained.manifest.created).timestamp()
        self._add(_Events(self._of(trained.manifest.key)), columns, ended, {})

    def _of(self, key: str) -> Path:
        return self._folder / f"{self._name}-{key[:16]}"

    def _add(self, events: _Events, columns: History, when: float, further: Mapping[str, float]) -> None:
        """Whatever becomes of the event files, the training goes on."""
        if self._failed:
            return
        try:
            events.add(columns, when, further)
        except OSError as error:
            self._failed = True
            logger.warning(
                "%s cannot be written (%s), and TensorBoard is told no more: the same command adds what is missing",
                events.folder,
                error.strerror,
            )


class _Events:
    """The event files in one folder: those that are there, and one more for what they lack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own: Path | None = None
        self._there: dict[int, dict[str, float]] | None = None
        """Step → tag → value; None before the first look."""
        self._told = 0
        """Epochs that are known to be there."""

    def add(self, columns: History, when: float, further: Mapping[str, float]) -> None:
        """Write the epochs that are not there, as of this moment, the last one with what is known of it besides.

        Where others are there, as of a card that sums in another order, all are written anew.

        Raises:
            OSError: a folder that cannot be read or written.
        """
        there = self._there = dict(self._read()) if self._there is None else self._there
        epochs = len(columns["train_loss"])
        news = {step: _scalars(columns, step) for step in range(self._told + 1, epochs + 1)}
        if any(step in there and not scalars.items() <= there[step].items() for step, scalars in news.items()):
            for path in self._files():
                path.unlink()
            self._own, self._told = None, 0
            there.clear()
            news = {step: _scalars(columns, step) for step in range(1, epochs + 1)}
        news = {step: scalars for step, scalars in news.items() if step not in there}
        if epochs in news:
            news[epochs] |= further
        if news:
            self._write(news, when)
            there |= news
        self._told = epochs

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{_FILES}*"))

    def _read(self) -> Iterator[tuple[int, dict[str, float]]]:
        from google.protobuf.message import DecodeError
        from tensorboardX.proto.event_pb2 import Event

        for path in self._files():
            for record in _records(path.read_bytes()):
                try:
                    event = Event.FromString(record)
                except DecodeError:
                    continue
                if event.summary.value:
                    yield event.step, {one.tag: one.simple_value for one in event.summary.value}

    def _write(self, news: Mapping[int, Mapping[str, float]], when: float) -> None:
        """Append them, whole as far as a disk takes it: a reader stops at the first record that is not."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        events = []
        if self._own is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            # They are read in the order of their names.
            self._own = self.folder / f"{_FILES}{time.time_ns()}.{socket.gethostname()}"
            events.append(Event(wall_time=when, file_version="brain.Event:2"))
        for step, scalars in news.items():
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
            events.append(Event(wall_time=when, step=step, summary=Summary(value=values)))
        with self._own.open("ab") as file:
            file.write(b"".join(_record(event.SerializeToString()) for event in events))


def _scalars(columns: History, step: int) -> dict[str, float]:
    """Tag → what an event file keeps of an epoch's figure, a float32."""
    found = {}
    for tag, name in TAGS.items():
        value = columns[name][step - 1]
        if value is None or math.isnan(value):
            continue
        found[tag] = value
        if tag.startswith("loss/"):
            found[tag.replace("loss", "perplexity")] = metrics.perplexity(value)
    with np.errstate(over="ignore"):
        return {tag: float(np.float32(value)) for tag, value in found.items()}


def _record(content: bytes) -> bytes:
    """A record of a TFRecord file: its length and its content, each followed by its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    size = struct.pack("<Q", len(content))
    return b"".join((size, struct.pack("<I", masked_crc32c(size)), content, struct.pack("<I", masked_crc32c(content))))


def _records(file: bytes) -> Iterator[bytes]:
    """The contents of the records of such a file, up to one that is not whole."""
    at = 0
    while len(size := file[at : at + 8]) == 8:
        content = file[at + 12 : at + 12 + int.from_bytes(size, "little")]
        record = _record(content)
        if file[at : at + len(record)] != record:
            return
        yield content
        at += len(record)
