"""Kill commands (`kill -9`) at every system call that changes something and at random moments, and see what is left.

    .venv/bin/python tests/kill.py [TIMES]

All four stages, forced and not, trainings of each cell with each optimizer, nights, promotions, ways back, sweepings
and pushes to a remote. After each kill nothing half is found, all that is there is sound and the champion can be used;
the same command again ends with the bytes of one that was left alone, and `gc` leaves nothing behind. Five thousand
kills take an hour, and of those each such call has one; of fewer than a thousand none is of a push. The suite holds a
short form of it.
"""

# ruff: noqa: E402

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy: what is forked has one thread

import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from data.store import champions, nights
from data.store.folder import Store
from stages.lm.model import LanguageModel
from stages.pipeline.decide import fault
from stages.training import checkpoint
from tests import forks
from tests.conftest import TEXT, TINY, in_this_process, write_tiny

RATES = {"sgd": 0.5, "momentum": 0.05, "adam": 0.003, "adamw": 0.003}
"""Optimizer → learning rate."""
TRAININGS = list(product(("rnn", "gru", "lstm"), RATES))
EVERYWHERE = {
    "layers": 2,
    "embedding_size": 6,
    "output_dropout": 0.2,
    "weight_dropout": 0.1,
    "epochs": 8,
    "patience": 6,
}
UNTRACED = 100
"""What an act counts for where no system call is seen."""
MOMENTARY = "source.json"
"""Says when something was fetched."""
SERVICE = """
import sys
from tests.s3 import S3

service = S3()
print(service.url, service.bucket("kills"), flush=True)
sys.stdin.read()
"""


@dataclass
class Act:
    """A command on a store, and what becomes of that where nothing disturbs it."""

    name: str
    command: tuple[str | Path, ...]
    before: Path
    """The store; it is copied."""
    after: dict[str, str] = field(default_factory=dict)
    """File → SHA-256, of all artifacts."""
    champion: str = ""
    seconds: float = 0
    changes: int = 0
    """System calls that change something."""


def main() -> None:
    """Print a row per act; exit code 1 where something was left that must not be."""
    times = int(sys.argv[1]) if sys.argv[1:] else 5000
    sys.exit(kills(times) > 0)


def kills(times: int, only: Collection[str] = ()) -> int:
    """So many kills over all acts, or those of these names; how many left a fault."""
    rng, wrong, done = random.Random(17), 0, 0
    within = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=within) as folder, service(times >= 1000) as bucket:
        acts = everything(Path(folder), bucket, only)
        print(f"{'':16} {'changes':>8} {'kills at one':>13} {'anywhere':>9} {'too late':>9} {'faults':>7}", flush=True)
        states = sum(act.changes or UNTRACED for act in acts)
        for act in acts:
            share = max(round(times * (act.changes or UNTRACED) / states), 2)
            chosen = rng.sample(range(act.changes), min(act.changes, share * 2 // 3))
            moments = [*chosen, *(rng.uniform(0, act.seconds) for _ in range(share - len(chosen)))]
            late = faults = 0
            for moment in moments:
                killed, said = kill(act, moment, Path(folder, "work"), bucket)
                late += not killed
                faults += bool(said)
                for sentence in said:
                    print(f"{act.name}, killed at {moment}: {sentence}", flush=True)
            row = f"{len(chosen):13,} {len(moments) - len(chosen):9,} {late:9,} {faults:7,}"
            print(f"{act.name:16} {act.changes:8,} {row}", flush=True)
            wrong, done = wrong + faults, done + len(moments) - late
    print(f"{done:,} kills, {wrong:,} of them left a fault")
    return wrong


def everything(folder: Path, bucket: str, only: Collection[str] = ()) -> list[Act]:
    """All acts, or those of these names, each done once where nothing disturbs it."""
    checkpoint.FIRST, checkpoint.FRACTION = 0, 1e9  # as many as there are steps, whatever they cost
    preset = write_tiny(folder, TINY, TEXT)
    here = ("--preset", preset)
    nothing, done, two, back, old = (folder / name for name in ("nothing", "done", "two", "back", "old"))
    forks.warm(("night", *here))
    nothing.mkdir()
    in_this_process(done, "run", *here)
    first = in_this_process(done, "train", *here).stdout.strip()
    shutil.copytree(done, two)
    in_this_process(two, "promote", first)
    other = in_this_process(two, "train", *here, "--set", "train.hidden_size=4").stdout.strip()
    shutil.copytree(two, back)
    in_this_process(back, "promote", other)
    in_this_process(back, "promote", other, "--name", "other")
    shutil.copytree(back, old)
    litter(old)
    acts = [
        Act("run", ("run", *here), nothing),
        Act("run --from", ("run", *here, "--from", "download"), done),
        Act("first night", ("night", *here), done),
        Act("night", ("night", *here, "--set", "train.epochs=3"), two),
        Act("promote", ("promote", other), two),
        Act("rollback", ("rollback",), back),
        Act("gc", ("gc", "--days", "0", "--checkpoints"), old),
        *([Act("push", ("push", "--remote", bucket), back)] if bucket else []),
    ]
    for cell, optimizer in TRAININGS:
        fields = {**EVERYWHERE, "cell": cell, "optimizer": optimizer, "learning_rate": RATES[optimizer]}
        settings = [f"--set=train.{name}={value}" for name, value in fields.items()]
        acts.append(Act(f"{cell} {optimizer}", ("train", *here, *settings), done))
    chosen = [act for act in acts if not only or act.name in only]
    return [undisturbed(act, folder / "work", number) for number, act in enumerate(chosen)]


def undisturbed(act: Act, work: Path, number: int) -> Act:
    """The act, with what comes of it and how long it takes."""
    seconds = begin(act, work, f"alone-{number}", None).seconds
    after, reign = files(work), champions.current(Store(work))
    changes = begin(act, work, f"traced-{number}", 1 << 30).changes if forks.traceable() else 0
    return replace(act, after=after, champion=reign.model if reign else "", seconds=seconds, changes=changes)


def kill(act: Act, moment: float, work: Path, bucket: str) -> tuple[bool, list[str]]:
    """Do an act on a fresh copy, and kill it; whether that was before its end, and what was wrong afterwards."""
    place = f"killed-{random.getrandbits(64):x}"
    ended = begin(act, work, place, moment)
    said = list(faults(work, act))
    if not ended.killed and ended.code:
        said.append(f"it ended with {ended.code}: {ended.err}")
    said += again(act, work, at(act, place))
    if "--remote" in act.command and not said:
        shutil.rmtree(pulled := work.with_name("pulled"), ignore_errors=True)
        forks.ran(pulled, "pull", "--all", "--remote", f"{bucket}/{place}")
        if files(pulled) != act.after or not champions.current(Store(pulled)):
            said.append("the remote has not all of it")
    in_this_process(work, "gc")
    return ended.killed, [*said, *leftovers(work)]


def again(act: Act, work: Path, command: tuple[str | Path, ...]) -> Iterator[str]:
    """Do the same once more, and say what is other than where nothing disturbs it."""
    reign = champions.current(Store(work))
    if act.name != "rollback" or (reign and reign.model != act.champion):  # that once more is back once more
        ended = forks.ran(work, *command)
        if ended.code:
            yield f"the same again ended with {ended.code}: {ended.err}"
    yield from faults(work, act)
    if (found := files(work)) != act.after:
        differing = sorted({one for one, _ in found.items() ^ act.after.items()})
        yield f"other bytes than when it is left alone: {', '.join(differing)}"
    reign = champions.current(Store(work))
    if (reign.model if reign else "") != act.champion:
        yield "another champion"


def begin(act: Act, work: Path, place: str, moment: float | None) -> forks.Ended:
    """Do an act on a fresh copy of its store, up to a moment."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(act.before, work)
    return forks.ran(work, *at(act, place), moment=moment)


def at(act: Act, place: str) -> tuple[str | Path, ...]:
    """Its command, on a remote of its own."""
    return (*act.command[:-1], f"{act.command[-1]}/{place}") if "--remote" in act.command else act.command


def files(folder: Path) -> dict[str, str]:
    """File → SHA-256, of all artifacts, as their manifests have it."""
    return {
        f"{one.place}/{name}": output.sha256
        for one in Store(folder).artifacts()
        for name, output in one.manifest.outputs.items()
        if name != MOMENTARY
    }


def faults(folder: Path, act: Act) -> Iterator[str]:
    """What is wrong with a store in which something was killed."""
    store = Store(folder)
    for place, artifact in store.published():
        damage = "no manifest" if artifact is None else store.damage(artifact, again=True) or fault(artifact)
        if damage and act.name != "gc":  # which begins with a damaged one
            yield f"half of {place.relative_to(folder)}: {damage}"
    reign = champions.current(store)
    if reign:
        LanguageModel.load(store.folder(champions.STAGE, reign.model))
    elif (act.before / "champion.json").exists():
        yield "no champion any more"
    for page in (*folder.glob("reports/*.html"), *folder.glob("index.html")):
        if not page.read_text(encoding="utf-8").rstrip().endswith("</html>"):
            yield f"half of {page.name}"
    noted = folder / "nights" / "default.jsonl"
    if noted.exists() and len(nights.read(store)) != len(noted.read_text(encoding="utf-8").splitlines()):
        yield "half of a night"


def leftovers(folder: Path) -> Iterator[str]:
    """What `gc` should have taken."""
    for path in (*folder.glob("tmp/*"), *folder.rglob("*.new")):
        yield f"gc left {path.relative_to(folder)}"


def litter(folder: Path) -> None:
    """What `gc` has to take: a damaged artifact, and what processes left that were killed."""
    (building := folder / "tmp" / f"train-{'0' * 16}-00000000").mkdir()
    (building / "model.safetensors").write_bytes(b"half of it")
    (folder / "champion.json.new").write_bytes(b"half of it")
    next(folder.glob("evaluate/*/metrics.json")).write_bytes(b"half of it")


@contextmanager
def service(wanted: bool) -> Iterator[str]:
    """An S3 endpoint in a process of its own, which the environment names; the address of a bucket."""
    if not wanted:
        yield ""
        return
    command = [sys.executable, "-c", SERVICE]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url, bucket = process.stdout.readline().split()
        os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        os.environ |= {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something", "NO_PROXY": "127.0.0.1"}
        yield bucket


if __name__ == "__main__":
    main()
