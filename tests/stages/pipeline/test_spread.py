"""A text that is read by the workers of a real Dask cluster, some of which are killed, gives what one process gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.corpus import parts
from data.errors import CorpusError, StoreError
from data.store import mirror
from data.store.artifact import Artifact
from data.store.folder import Store, open_store
from stages.lm import stretches
from stages.pipeline import graph, settings, spread
from stages.pipeline.run import Walk, perform

if TYPE_CHECKING:
    from data.progress import Progress
    from tests.conftest import Rnnlm

pytest.importorskip("distributed")

ROOT = Path(__file__).parents[3]
LINE = "The sea, the Sea; Über dem Meer 你好 and tides that number {} or {}.\n"


@dataclass
class Cluster:
    """A scheduler and its workers, each a process of its own."""

    folder: Path
    address: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        found = self.folder / "scheduler.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(found))
        self.join(3)
        wait(lambda: found.is_file() and "tcp://" in found.read_text(encoding="utf-8"))
        self.address = next(word for word in found.read_text(encoding="utf-8").split('"') if word.startswith("tcp://"))

    def join(self, number: int) -> None:
        for _ in range(number):
            disk = self.folder / f"disk{len(self.processes)}"
            options = ("--scheduler-file", str(self.folder / "scheduler.json"), "--local-directory", str(disk))
            self._start("worker", *options, "--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1")

    def _start(self, kind: str, *options: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        log = (self.folder / f"{kind}{len(self.processes)}.log").open("wb")
        self.processes.append(
            subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        )

    def left(self) -> list[Path]:
        """What workers keep for a run."""
        return [*self.folder.glob("disk*/**/rnnlm-*")]

    def kill(self, *which: int) -> None:
        for one in which or range(len(self.processes)):
            with suppress(ProcessLookupError):
                os.killpg(self.processes[one].pid, signal.SIGKILL)
            self.processes[one].wait()


def wait(until: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text of a dozen parts, the first of which is longer than what a worker is given."""
    path = tmp_path / "text.txt"
    lines = [LINE.format(number % 7, number) for number in range(1500)]
    path.write_text("One long line " * 900 + "\n" + "".join(lines), encoding="utf-8")
    for name, value in (("SIZE", 8_000), ("MOST", 10_000)):
        monkeypatch.setattr(parts, name, value)
    monkeypatch.setattr(spread, "LONGEST", 10_000)
    return path


def silent(done: float, total: float, figures: str) -> None:
    """No progress is shown."""


def tokenized(text: Path, store: Store, *fields: str, dask: str = "", progress: Progress = silent) -> Artifact:
    config = settings.load("sample", str(text), fields)
    corpus = perform("download", config, {}, store, silent).artifact
    return perform("tokenize", config, {"download": corpus}, store, progress, forced=True, dask=dask).artifact


LEVELS = [
    ("tokenize.level=char", "tokenize.max_tokens=60000"),
    ("tokenize.level=word", "tokenize.min_freq=2"),
    ("tokenize.level=bpe", "tokenize.vocab_size=300"),
]


def test_workers_give_the_same_bytes_and_one_that_is_killed_loses_nothing(
    cluster: Cluster, text: Path, tmp_path: Path
) -> None:
    def kill(which: int, passes: float) -> Progress:
        def progress(done: float, total: float, figures: str) -> None:
            if done > passes * text.stat().st_size and cluster.processes[which].poll() is None:
                assert cluster.left(), "what a pass has left lies on the workers' disks"
                cluster.kill(which)

        return progress

    # None; one in the middle of the pass that counts; one in the middle of the last.
    for fields, progress in zip(LEVELS, (silent, kill(3, 1.3), kill(2, 2.3)), strict=True):
        alone = tokenized(text, Store(tmp_path / "alone"), *fields)
        there = tokenized(text, Store(tmp_path / "store"), *fields, dask=cluster.address, progress=progress)
        assert there.manifest.outputs == alone.manifest.outputs
        assert there.manifest.key == alone.manifest.key
    assert [process.poll() for process in cluster.processes] == [None, None, -signal.SIGKILL, -signal.SIGKILL]
    wait(lambda: not [*cluster.folder.glob("disk1/**/rnnlm-*")])


def test_documents_are_read_by_workers_too(cluster: Cluster, text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    lines = text.read_text(encoding="utf-8").splitlines()
    for number in range(40):
        (folder / f"{number}.txt").write_text("\n".join(lines[1 + 37 * number : 37 * (number + 1)]), encoding="utf-8")
    alone = tokenized(folder, Store(tmp_path / "alone"), "tokenize.level=word")
    there = tokenized(folder, Store(tmp_path / "store"), "tokenize.level=word", dask=cluster.address)
    assert "documents.arrow" in there.manifest.outputs
    assert there.manifest.outputs == alone.manifest.outputs


def test_workers_of_other_code_are_refused(
    cluster: Cluster, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spread, "code", lambda *arguments: "another digest")
    with pytest.raises(StoreError, match="the code of tokenize, or a library of it, is not the same here and on"):
        tokenized(text, Store(tmp_path / "store"), dask=cluster.address)


def test_what_is_wrong_with_a_text_is_said_as_without_a_cluster(cluster: Cluster, text: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"lower tokenize\.min_freq"):
        tokenized(text, Store(tmp_path / "store"), "tokenize.min_freq=1000000", dask=cluster.address)


def test_a_long_evaluation_is_shared_too(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "LENGTH", 4_000)
    corpus, store = tmp_path / "long.txt", Store(tmp_path / "store")
    corpus.write_text("".join(LINE.format(number, number % 7) for number in range(400)), encoding="utf-8")
    fields = ("train.engine=bptt", "train.hidden_size=4", "train.epochs=1")
    config = settings.load("sample", str(corpus), fields)
    walk = Walk(lambda name, upstream: perform(name, config, upstream, store, silent))
    alone = [*walk.steps("evaluate")][-1].artifact
    shared = perform("evaluate", config, walk.artifacts, store, silent, forced=True, dask=cluster.address)
    assert shared.state == "ran"
    assert shared.artifact.manifest.outputs == alone.manifest.outputs


@pytest.fixture
def errand(text: Path, tmp_path: Path) -> spread.Errand:
    """What a worker is told that has never seen the text."""
    corpus = perform("download", settings.load("sample", str(text)), {}, Store(tmp_path / "store"), silent).artifact
    stage, libraries = "tokenize", tuple(graph.STAGES["tokenize"].libraries(settings.load("sample", None).tokenize))
    return spread.Errand(
        "rnnlm-0",
        stage,
        (("download", corpus.manifest.key),),
        str(tmp_path / "own"),
        "",
        spread.code(stage, libraries),
        libraries,
    )


def test_a_worker_without_the_store_says_what_a_cluster_needs(errand: spread.Errand) -> None:
    with pytest.raises(CorpusError, match="all have to see the same store under the same path, or the same remote"):
        spread._see_that_all_is_the_same(errand)


def test_a_worker_without_the_store_has_the_remote(errand: spread.Errand, tmp_path: Path, bucket: str) -> None:
    mirror.share(open_store(str(tmp_path / "store"), bucket), *errand.read[0])
    spread._see_that_all_is_the_same(replace(errand, remote=bucket))
    brought = Store(tmp_path / "own").find(*errand.read[0])
    assert brought
    assert (brought.folder / "corpus.txt").read_bytes() == (tmp_path / "text.txt").read_bytes()


def test_a_cluster_that_has_lost_its_workers_or_its_scheduler_is_one_sentence(
    cluster: Cluster, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")

    def lose(done: float, total: float, figures: str) -> None:
        if done > text.stat().st_size * 1.2:
            cluster.kill(*range(1, len(cluster.processes)))

    with monkeypatch.context() as patch:
        patch.setattr(spread, "ALIVE", 0.5)
        with pytest.raises(StoreError, match=r"has had no worker for 0\.5 seconds: start some") as caught:
            tokenized(text, store, dask=cluster.address, progress=lose)
    assert caught.value.exit_code == 2
    monkeypatch.setattr("data.cluster.SECONDS_TO_ANSWER", 1.0)
    threading.Timer(0.5, cluster.kill, [0]).start()
    with pytest.raises(StoreError, match="went away and nothing is lost: the same command begins this stage again"):
        tokenized(text, store, dask=cluster.address)
    assert [artifact.manifest.stage for artifact in store.artifacts()] == ["download"]
    assert not list(store.root.glob("tmp/*"))


def test_processes_of_this_machine_are_a_cluster_that_ends_with_the_command(
    text: Path, tmp_path: Path, here: Rnnlm
) -> None:
    def workers() -> list[int]:
        tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split() if b"spawn_main" in command(pid)]

    def command(pid: str) -> bytes:
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes()
        return b""

    def kept() -> bool:
        with suppress(OSError):  # they come and go
            return bool([*store.glob("tmp/**/rnnlm-*/*")])
        return False

    def kill() -> None:
        """One of them, once something was read."""
        wait(kept)
        os.kill(workers()[0], signal.SIGKILL)
        killed.set()

    killed = threading.Event()
    store = tmp_path / "store"
    alone = tokenized(text, Store(tmp_path / "alone"))
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    here("tokenize", "--corpus", text, "--dask", "local:2")
    assert killed.is_set()
    (there,) = Store(store).artifacts("tokenize")
    assert there.manifest.outputs == alone.manifest.outputs
    assert not [pid for pid in workers() if command(str(pid))]
    assert not [*store.glob("tmp/*")]
