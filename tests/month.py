"""More than a month of a store in one process: two hundred days of nights, runs and sweepings, and what they add up to.

    .venv/bin/python tests/month.py [DAYS]

Each day the corpus has grown and a night trains, and some of its models are promoted; a run tries another
configuration, and now and then it is killed; some champions are promoted by hand or gone back from; once a week `gc`
sweeps. A day passes by making all of the store and of the cache a day older. All of it runs in this process, whose
memory, open files and threads must not grow; nor may the store and the cache, beyond what their rules say; and in the
end everything is sound. Ten minutes; the suite holds a short form of it.
"""

# ruff: noqa: E402

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy: what is forked has one thread

import ctypes
import gc
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import pyarrow as pa

from data.store import champions, nights
from data.store.collect import KEPT_DAYS, KEPT_MODELS
from data.store.folder import Store
from stages.lm.model import LanguageModel
from tests import forks
from tests.conftest import in_this_process

DAY = 86_400
libc = ctypes.CDLL(None)
WORDS = (
    *("sea", "tide", "keeper", "island", "cable", "pencil", "night", "clerk", "rose"),
    *("wall", "boat", "letter", "drum", "storm", "lamp", "stone", "bread", "window"),
)
PRESET = """
[tokenize]
train_share = 0.7
valid_share = 0.1
test_share = 0.2

[train]
engine = "bptt"
hidden_size = 16
batch_size = 16
num_steps = 20
epochs = 2

[evaluate]
prefixes = ["the "]
length = 20
"""
MODELS_A_DAY = 2
"""The night's and the run's."""
MEMORY = 4 << 20
"""Bytes by which the last third's highest may lie above the highest before: what is noted of nights grows by a line a
day, and is all that does."""


class Day(NamedTuple):
    """What one ended with."""

    memory: int
    """Resident, bytes."""
    files: int
    """That are open."""
    threads: int
    models: int
    artifacts: int
    bytes: int
    """Of the store, whose corpus grows."""
    notes: int
    """Bytes that are noted of champions and nights."""
    cache: int
    """Files in the user's cache."""
    reports: int
    """Files of them."""
    locks: int


def main() -> None:
    """Print a row for each tenth of the time; exit code 1 where something grew or is not sound."""
    days = int(sys.argv[1]) if sys.argv[1:] else 200
    with tempfile.TemporaryDirectory() as folder:
        faults = month(Path(folder), days)
    for fault in faults:
        print(fault)
    sys.exit(bool(faults))


def month(folder: Path, days: int) -> list[str]:
    """Live through so many days; what was wrong with them, in sentences."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    (folder / "cache").mkdir()  # there may be nothing to keep in it for days
    rng, store, done, seen = random.Random(17), folder / "store", Counter[str](), list[Day]()
    corpus, preset = folder / "corpus.txt", folder / "preset.toml"
    preset.write_text(f'[download]\ncorpus = "{corpus}"\n{PRESET}', encoding="utf-8")
    names = {"day": 4, "memory": 9, "open": 5, "threads": 8, "models": 7, "artifacts": 10, "store": 9, "notes": 8}
    names |= {"reports": 8, "locks": 6, "cache": 6}
    print(*(f"{name:>{width}}" for name, width in names.items()))
    for day in range(days):
        with corpus.open("a", encoding="utf-8") as text:
            text.writelines(story(rng, 150 if day == 0 else 4))
        for command in commands(rng, day, store, preset):
            if day % 5 == 4 and command[0] == "run":
                done["killed"] += forks.ran(store, *command, moment=rng.uniform(0, 1)).killed
            else:
                said = in_this_process(store, *command).stdout
                done[f"night {json.loads(said)['decision']}" if command[0] == "night" else str(command[0])] += 1
        passed(store, folder / "cache")
        seen.append(look(store, folder / "cache"))
        if (day + 1) % max(days // 10, 1) == 0:
            one = seen[-1]
            row = f"{one.memory / 1e6:6.1f} MB {one.files:5} {one.threads:8} {one.models:7} {one.artifacts:10}"
            row += f" {one.bytes / 1e6:6.2f} MB {one.notes / 1e3:5.1f} kB {one.reports:8} {one.locks:6} {one.cache:6}"
            print(f"{day + 1:4} {row}", flush=True)
    print(", ".join(f"{number} × {what}" for what, number in sorted(done.items())))
    return [*grown(seen), *unsound(store)]


def commands(rng: random.Random, day: int, store: Path, preset: Path) -> Iterator[tuple[str | Path, ...]]:
    """What is asked for on a day."""
    here = ("--preset", preset)
    # From week to week the nights train longer, and then begin anew: some of their models are better than the champion.
    yield "night", *here, "--json", "--set", f"train.epochs={1 + day // 7 % 5}", "--set", f"train.seed={day // 35}"
    tried = {"cell": ("rnn", "gru", "lstm"), "hidden_size": range(4, 24), "num_steps": range(10, 30)}
    yield "run", *here, *(f"--set=train.{field}={rng.choice(values)}" for field, values in tried.items())
    yield "run", *here, "--set", f"train.seed={day // 35}", "--set", f"train.epochs={1 + day // 7 % 5}"
    yield "sample", "--length", "5"
    models = Store(store).artifacts(champions.STAGE)
    if day % 3 == 2:
        yield "promote", rng.choice(models[:4]).manifest.key, "--name", rng.choice(("default", "other"))
    if day % 9 == 8 and sum(not one.withdrawn for one in champions.history(Store(store))) > 1:
        yield ("rollback",)
    if day % 7 == 6:
        yield from (("verify",), ("runs",), ("history",), ("champion",), ("status", *here))
        yield "gc", "--keep", str(KEPT_MODELS)


def story(rng: random.Random, sentences: int) -> Iterator[str]:
    """Sentences of words in no order, so that hardly any 50 characters in a row come twice."""
    for _ in range(sentences):
        yield f"The {' '.join(rng.choices(WORDS, k=rng.randint(5, 12)))}.\n"


def passed(*folders: Path) -> None:
    """Make all that lies in folders a day older."""
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            found = path.lstat()
            os.utime(path, ns=(found.st_atime_ns - DAY * 10**9, found.st_mtime_ns - DAY * 10**9))


def look(folder: Path, cache: Path) -> Day:
    """Count what there is."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    libc.malloc_trim(0)  # what the allocators keep for later comes and goes by 20 MB
    store = Store(folder)
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    notes = (*folder.glob("*.json"), *folder.glob("champions/*"), *folder.glob("nights/*"))
    return Day(
        memory=memory,
        files=len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        threads=len(os.listdir("/proc/self/task")),  # noqa: PTH208
        models=len(store.artifacts(champions.STAGE)),
        artifacts=len(store.artifacts()),
        bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        notes=sum(path.stat().st_size for path in notes),
        cache=sum(path.is_file() for path in cache.rglob("*")),
        reports=len(store.entries("reports")),
        locks=len(store.entries("locks")),
    )


def grown(seen: Sequence[Day]) -> Iterator[str]:
    """What grew that must not."""
    earlier, last = seen[: 2 * len(seen) // 3], seen[2 * len(seen) // 3 :]
    before, after = (max(one.memory for one in part) for part in (earlier, last))
    if len(seen) > KEPT_DAYS and after - before > MEMORY:  # of a few days nobody can tell
        yield f"memory grew from {before / 1e6:.1f} to {after / 1e6:.1f} MB"
    for what, late in {"files": 0, "threads": 2}.items():  # a library may begin its own late
        if max(getattr(one, what) for one in last) > max(getattr(one, what) for one in earlier) + late:
            yield f"{what} grew: {sorted({getattr(one, what) for one in last})}"
    # Of each of two names the champion and those before it, the last models, and what was made or used within a month.
    bound = 2 * (champions.KEPT_BEFORE + 1) + KEPT_MODELS + MODELS_A_DAY * (KEPT_DAYS + 7)
    bounds = {
        "models": bound,
        "artifacts": 6 * bound,
        "locks": 8 * bound,
        "cache": 40 * bound,
        "reports": 4 * (bound + len(seen)),  # the nights' pages stay as long as the nights, two years
        "notes": 6_000 * len(seen),
    }
    for what, allowed in bounds.items():
        if (most := max(getattr(one, what) for one in seen)) > allowed:
            yield f"{what}: {most:,}, and what is kept by its rules is at most {allowed:,}"


def unsound(folder: Path) -> Iterator[str]:
    """What is not as it should be in the end."""
    store = Store(folder)
    yield from (line for line in in_this_process(folder, "verify").stdout.splitlines() if not line.endswith(" sound"))
    for name in ("default", "other"):
        if reign := champions.current(store, name):
            LanguageModel.load(store.folder(champions.STAGE, reign.model)).sample("the ", 5)
    in_this_process(folder, "gc")
    yield from (f"left: {path}" for path in (*folder.glob("tmp/*"), *folder.rglob("*.new")))
    noted = [one.when for one in nights.read(store)]
    if noted != sorted(noted):
        yield "the nights are out of order"


if __name__ == "__main__":
    main()
