"""Let seven processes run, promote and go back at once, while an eighth removes whatever nobody needs.

    .venv/bin/python tests/storm.py [SECONDS]

Trainings, runs, nights, champions promoted, gone back from and used, on one store, beside one `gc --days 0
--checkpoints` after the other; some are killed, and for some the clock jumps by a year in the middle. Each command does
what it is asked for: only a model that is gone may not be promoted, and the first champion not gone back from. In the
end all that is there is sound. Before, eight processes ask for the same at once: one does the work, and seven reuse it.
A minute; the suite holds a short form of it.
"""

# ruff: noqa: E402

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy: what is forked has one thread

import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import forks, kill
from tests.conftest import TEXT, TINY, in_this_process, write_tiny

AT_ONCE = 8
SWEEPING = ("gc", "--days", "0", "--checkpoints")
YEAR = 366 * 86_400
REFUSED = {
    "promote": ("is not promoted, for its artifact is gone", "begin with"),
    "rollback": ("there is no champion to go back to", "has no champion to go back from"),
}
"""Command → what it may be told."""


def main() -> None:
    """Print what was done and how often; exit code 1 where something went wrong."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        faults = storm(Path(folder), float(sys.argv[1]) if sys.argv[1:] else 60)
    print("\n".join([*faults, f"{len(faults)} faults"]))
    sys.exit(bool(faults))


def storm(folder: Path, seconds: float) -> list[str]:
    """So many seconds of it; what went wrong, in sentences."""
    rng, store, preset = random.Random(17), folder / "store", write_tiny(folder, TINY, TEXT)
    forks.warm(("night", "--preset", preset))
    faults = [*same_at_once(store, preset)]
    in_this_process(store, "night", "--preset", preset)
    running: dict[int, tuple[forks.Process, tuple[str | Path, ...], bool]] = {}
    done, ends = Counter[str](), time.monotonic() + seconds

    def begin(*command: str | Path) -> None:
        years = rng.choice((0, 0, 0, -1, 1)) if command != SWEEPING else 0
        process = forks.start(store, *command, before=lambda: jump(years * YEAR))
        running[process.pid] = process, command, False

    begin(*SWEEPING)
    while running:
        while len(running) < AT_ONCE and time.monotonic() < ends:
            begin(*something(rng, store, preset))
        if rng.random() < 0.02:
            pid = rng.choice([*running])
            os.kill(pid, signal.SIGKILL)
            running[pid] = *running[pid][:2], True
        pid, status = os.waitpid(-1, 0)
        process, command, killed = running.pop(pid)
        ended = forks.ended(process, status)
        done["killed" if killed else str(command[0])] += 1
        fine = any(words in ended.err for words in REFUSED.get(str(command[0]), ()))
        if not killed and (ended.code not in ((0, 2) if fine else (0,)) or "Traceback" in ended.err):
            faults.append(f"{' '.join(map(str, command))} ended with {ended.code}: {ended.err}")
        if command == SWEEPING and time.monotonic() < ends:
            begin(*SWEEPING)
    print(", ".join(f"{number} × {what}" for what, number in sorted(done.items())))
    in_this_process(store, "gc")
    said = in_this_process(store, "verify").stdout.splitlines()
    return [*faults, *(line for line in said if not line.endswith(" sound")), *kill.leftovers(store)]


def same_at_once(store: Path, preset: Path) -> list[str]:
    """Ask eight processes for the same; whatever was made by more than one of them."""
    processes = [forks.start(store, "run", "--preset", preset, "--json") for _ in range(AT_ONCE)]
    answers = [forks.end(process) for process in processes]
    stages = [(one["name"], one["state"]) for answer in answers for one in json.loads(answer.out)["stages"]]
    made = Counter(name for name, state in stages if state == "ran")
    return [f"{name} was made {number} times" for name, number in made.items() if number > 1]


def something(rng: random.Random, store: Path, preset: Path) -> tuple[str | Path, ...]:
    """A command."""
    what = rng.choice(("run", "run", "run", "train", "night", "promote", "rollback", "sample", "evaluate", "history"))
    if what in ("run", "train", "night"):
        sizes, epochs = rng.choice((3, 4, 5)), rng.choice((1, 2, 3))
        return what, "--preset", preset, f"--set=train.hidden_size={sizes}", f"--set=train.epochs={epochs}"
    if what == "promote":
        models = [path.name for path in store.glob("train/*")]
        return what, rng.choice(models) if models else "0" * 16
    if what == "evaluate":
        return what, "--on", preset.with_name("text.txt")
    return (what, "--length", "5") if what == "sample" else (what,)


def jump(seconds: float) -> None:
    """Let this process live that much later, or earlier, from a moment in the middle of what it does."""
    from data import moment
    from stages.cli import nights

    now, now_ns = time.time, time.time_ns
    begins = now() + 0.1

    def by() -> float:
        return seconds if now() > begins else 0

    time.time, time.time_ns = lambda: now() + by(), lambda: now_ns() + int(by() * 1e9)
    there = SimpleNamespace(now=lambda zone: datetime.fromtimestamp(time.time(), zone))
    vars(moment)["datetime"] = vars(nights)["datetime"] = there


if __name__ == "__main__":
    main()
