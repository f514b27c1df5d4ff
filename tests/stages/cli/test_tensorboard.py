"""A training as TensorBoard shows it: the figures of its history, each epoch once, whatever happened on the way."""

from __future__ import annotations

import json
import math
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data.errors import Interrupted
from data.tables import history
from stages.cli import again
from stages.report import tensorboard

if TYPE_CHECKING:
    from data.progress import Watch
    from tests.conftest import Rnnlm

pytest.importorskip("tensorboardX", reason="event files are written by tensorboardX")

Scalars = dict[tuple[str, int], float]
"""Tag and step → value."""
EPOCHS = ("--set", "train.epochs=4")


def checksum(content: bytes) -> int:
    """The masked CRC-32C of a TFRecord file, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(file: bytes) -> Iterator[bytes]:
    while file:
        size, of_size = struct.unpack("<QI", file[:12])
        content, (of_content,) = file[12 : 12 + size], struct.unpack("<I", file[12 + size : 16 + size])
        assert (of_size, of_content) == (checksum(file[:8]), checksum(content))
        yield content
        file = file[16 + size :]


def events(folder: Path) -> Iterator[tuple[float, tuple[str, int], float]]:
    """Moment, tag and step, value, of all event files in a folder; a record that is not whole is an error."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("*tfevents*")):
        first, *others = map(Event.FromString, records(path.read_bytes()))
        assert first.file_version == "brain.Event:2"
        for event in others:
            for value in event.summary.value:
                yield event.wall_time, (value.tag, event.step), value.simple_value


def scalars(folder: Path) -> Scalars:
    """All but the speed, which no history holds; that none is there twice is asserted."""
    found = [(place, value) for _, place, value in events(folder) if place[0] != "tokens_per_second"]
    assert len({place for place, _ in found}) == len(found)
    return dict(found)


def expected(model: Path) -> Scalars:
    columns = history.read(model / "history.arrow")
    tags = {
        "loss/train": "train_loss",
        "loss/valid": "valid_loss",
        "perplexity/train": "train_perplexity",
        "perplexity/valid": "valid_perplexity",
        "learning_rate": "learning_rate",
        "grad_norm/mean": "grad_norm_mean",
        "grad_norm/max": "grad_norm_max",
    }
    return {
        (tag, epoch): float(np.float32(value))
        for tag, name in tags.items()
        for epoch, value in zip(columns["epoch"], columns[name], strict=True)
        if value is not None
    }


def train(here: Rnnlm, preset: Path, *arguments: str | Path, code: int = 0) -> Path:
    return Path(here("train", "--preset", preset, *arguments, code=code).stdout.strip())


def test_each_epoch_is_there_as_in_the_history(here: Rnnlm, tiny: Path) -> None:
    began = time.time()
    model = train(here, tiny, *EPOCHS, "--tensorboard", tiny.parent / "board")
    [folder] = (tiny.parent / "board").iterdir()
    assert folder.name == f"tiny-{model.name}"
    assert scalars(folder) == expected(model)
    assert {step for _, (tag, step), value in events(folder) if tag == "tokens_per_second" and value > 0} == {
        1,
        2,
        3,
        4,
    }
    moments = [moment for moment, _, _ in events(folder)]
    assert moments == sorted(moments)
    assert began < moments[0]
    assert moments[-1] < time.time()


def test_no_artifact_and_no_key_knows_of_it(here: Rnnlm, tiny: Path) -> None:
    model = train(here, tiny, "--tensorboard", tiny.parent / "board")
    seen = {path.name: path.read_bytes() for path in model.iterdir() if path.name != "manifest.json"}
    shutil.rmtree(tiny.parent / "store")
    assert train(here, tiny) == model
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.name != "manifest.json"} == seen


def test_a_training_without_a_validation_split_has_no_such_figures(here: Rnnlm, tiny: Path) -> None:
    shares = ("--set", "tokenize.train_share=1", "--set", "tokenize.valid_share=0", "--set", "tokenize.test_share=0")
    train(here, tiny, *shares, "--tensorboard", tiny.parent / "board")
    [folder] = (tiny.parent / "board").iterdir()
    found = scalars(folder)
    assert ("loss/train", 1) in found
    assert not [tag for tag, _ in found if tag.endswith("/valid")]
    assert all(map(math.isfinite, found.values()))


def test_a_training_that_is_reused_is_there_as_it_was(
    here: Rnnlm, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "remember", lambda *_: pytest.fail("the same command would write nothing again"))
    for _ in range(2):
        done = here("run", "--preset", trained, "--tensorboard", trained.parent / "board")
        assert "train     cached" in done.stderr
    [folder] = (trained.parent / "board").iterdir()
    [model] = (trained.parent / "store" / "train").iterdir()
    assert scalars(folder) == expected(model)
    created = json.loads((model / "manifest.json").read_text(encoding="utf-8"))["created"]
    assert {moment for moment, _, _ in events(folder)} == {datetime.fromisoformat(created).timestamp()}


def ends_after(epochs: int, end: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the training end so early, once TensorBoard was told."""
    before = tensorboard.Board.watching

    def watching(board: tensorboard.Board, key: str, number: int) -> Watch:
        watch = before(board, key, number)

        def watched(columns: Mapping[str, Sequence[float]], speed: float) -> None:
            watch(columns, speed)
            if len(columns["train_loss"]) == epochs:
                end()

        return watched

    monkeypatch.setattr(tensorboard.Board, "watching", watching)


def killed() -> None:
    raise Interrupted("as if it were killed: no checkpoint is written", signal.SIGKILL)


@pytest.mark.parametrize(("end", "code"), [(lambda: signal.raise_signal(signal.SIGINT), 130), (killed, 137)])
def test_a_training_that_goes_on_does_so_in_its_folder(
    here: Rnnlm, tiny: Path, end: Callable[[], None], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*EPOCHS, "--tensorboard", tiny.parent / "board")
    with monkeypatch.context() as patch:
        ends_after(3, end, patch)
        train(here, tiny, *command, code=code)
    [folder] = (tiny.parent / "board").iterdir()
    first = [*events(folder)]
    assert {step for _, (_, step), _ in first} == {1, 2, 3}
    model = train(here, tiny, *command)
    assert [*(tiny.parent / "board").iterdir()] == [folder]
    assert scalars(folder) == expected(model)
    assert [*events(folder)][: len(first)] == first, "at the moments at which they were measured"


def test_what_a_checkpoint_has_of_a_training_is_there_at_once(
    here: Rnnlm, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        ends_after(3, lambda: signal.raise_signal(signal.SIGINT), patch)
        train(here, tiny, *EPOCHS, "--tensorboard", tiny.parent / "other", code=130)
    ends_after(3, killed, monkeypatch)
    train(here, tiny, *EPOCHS, "--tensorboard", tiny.parent / "board", code=137)
    [folder], [other] = ((tiny.parent / name).iterdir() for name in ("board", "other"))
    assert scalars(folder) == scalars(other)


def test_what_was_cut_off_is_written_again(here: Rnnlm, trained: Path) -> None:
    command = ("--tensorboard", trained.parent / "board")
    model = train(here, trained, *command)
    [path] = (trained.parent / "board").glob("*/*tfevents*")
    whole = path.read_bytes()
    *_, last = records(whole)
    for left in (len(whole) - 1, len(whole) - len(last) - 10, 3):
        path.write_bytes(whole[:left])
        train(here, trained, *command)
        kept, *others = sorted(path.parent.iterdir())
        [added] = others
        assert kept == path
        kept.unlink()
        steps = {step for _, step in scalars(path.parent)}
        assert steps == ({1, 2} if left == 3 else {2})
        added.unlink()
    path.write_bytes(whole)
    assert scalars(path.parent) == expected(model)


def test_what_is_of_another_training_is_replaced(here: Rnnlm, trained: Path) -> None:
    board = trained.parent / "board"
    one = train(here, trained, "--tensorboard", board)
    other = train(here, trained, "--set", "train.seed=1")
    (board / f"tiny-{one.name}").rename(board / f"tiny-{other.name}")
    train(here, trained, "--set", "train.seed=1", "--tensorboard", board)
    assert expected(one) != expected(other) == scalars(board / f"tiny-{other.name}")


def test_networks_stand_side_by_side_below_their_mean(here: Rnnlm, trained: Path) -> None:
    """The first of them was trained before, alone."""
    board = trained.parent / "board"
    alone = [train(here, trained, "--set", f"train.seed={seed}") for seed in (0, 1)]
    model = train(here, trained, "--set", "train.networks=2", "--tensorboard", board)
    folder = board / f"tiny-{model.name}"
    assert scalars(folder) == expected(model)
    assert [scalars(folder / f"network-{number}") for number in (1, 2)] == [expected(one) for one in alone]


def test_the_training_goes_on_without_it(here: Rnnlm, trained: Path) -> None:
    board = trained.parent / "board"
    [model] = (trained.parent / "store" / "train").iterdir()
    board.mkdir()
    (board / f"tiny-{model.name}").write_text("in the way", encoding="utf-8")
    command = ("train", "--preset", trained, "--tensorboard", board)
    done = here(*command, "--force", "train")
    assert done.stderr.count("TensorBoard") == 1
    assert "train     ran" in done.stderr
    (board / f"tiny-{model.name}").unlink()
    here(*command)
    assert scalars(board / f"tiny-{model.name}") == expected(model)


def test_what_cannot_be_is_said_before_anything_begins(
    here: Rnnlm, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: Any) -> str:
        said = here(*arguments, "--preset", tiny, code=2).stderr
        assert not (tiny.parent / "store").exists()
        assert said.count("\n") == 1
        return said

    assert "name a folder that can be" in refused("train", "--tensorboard", tiny / "board")
    if Path("/proc/self").exists():  # which takes nobody's files, whoever asks
        assert "name a folder that can be" in refused("train", "--tensorboard", "/proc")
    assert "`rnnlm tokenize` trains nothing" in refused("tokenize", "--tensorboard", tiny.parent / "board")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert "pip install tensorboardX" in refused("run", "--tensorboard", tiny.parent / "board")
    assert not (tiny.parent / "board").exists()
