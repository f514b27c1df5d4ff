"""Let a disk be full at every page and at every file that a command needs, and see what it says and what it leaves.

    sudo .venv/bin/python tests/full.py [EVERY]

On small file systems in memory, which root may mount: each act of `tests/kill.py` with room for no page, one, two, …
beside the store that it begins with, and then for so many files; with EVERY only at each so manieth. It ends in one
sentence and exit code 2, or with a warning where it can do without; what was there before is sound and the champion can
be used; `gc` needs no room, and with room the same command ends with the bytes of one that had it all along. Then the
same disk is read-only: reusing and reading work, and whatever would write says so in a sentence. Twelve minutes; the
suite holds a short form of it.
"""

# ruff: noqa: E402

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy: what is forked has one thread

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import forks, kill

PAGE = 4096
ROOMY = {"size": 64 << 20, "nr_inodes": 100_000}
DOING_WITHOUT = ("the report", "this night is not noted", "nothing was removed")
"""What a warning begins with, of a command that goes on without room."""


def main() -> None:
    """Print a row per act; exit code 1 where something was wrong."""
    if why := refused():
        sys.exit(f"nothing was tried: {why}")
    wrong = full(int(sys.argv[1]) if sys.argv[1:] else 1)
    sys.exit(wrong > 0)


def full(every: int, only: Sequence[str] = ()) -> int:
    """All acts, or those of these names; how many faults there were."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        acts = kill.everything(Path(folder), "", only)
        print(f"{'':16} {'pages':>6} {'files':>6} {'ended in a sentence':>20} {'did without':>12} {'faults':>7}")
        for act in acts:
            needs, ends = {}, Counter[str]()
            for kind in ROOMY:
                room = 0
                while (ended := with_room(act, kind, room, Path(folder, "disk"))) != "had it all":
                    ends[ended] += 1
                    room += every
                needs[kind] = room
            faults = ends.total() - ends["a sentence"] - ends["did without"]
            row = (
                f"{needs['size']:6} {needs['nr_inodes']:6} {ends['a sentence']:20} {ends['did without']:12} {faults:7}"
            )
            print(f"{act.name:16} {row}", flush=True)
            wrong += faults
        if not only:
            wrong += read_only(acts, Path(folder))
    return wrong


def with_room(act: kill.Act, kind: str, room: int, disk: Path) -> str:
    """Do an act on a disk with so many pages or files to spare, see what is left, and do it again; how it ended."""
    with mounted(disk):
        store = disk / "store"
        shutil.copytree(act.before, store)
        found = os.statvfs(disk)
        used = {"size": (found.f_blocks - found.f_bfree) * PAGE, "nr_inodes": found.f_files - found.f_ffree}
        limit = used[kind] + room * (PAGE if kind == "size" else 1)
        remount(disk, **ROOMY | {kind: max(limit, PAGE if kind == "size" else 1)})  # 0 is no limit
        ended = forks.ran(store, *act.command)
        said = [line for line in ended.err.splitlines() if line.startswith("rnnlm: ")]
        faults = list(kill.faults(store, act))
        if not (ended.code == 0 and not said) and not (ended.code == 2 and len(said) == 1):
            faults.append(f"exit code {ended.code}: {ended.err}")
        if (swept := forks.ran(store, "gc")).code:
            faults.append(f"gc: {swept.err}")
        remount(disk, **ROOMY)
        faults += kill.again(act, store, act.command)
        faults += kill.leftovers(store)
        for fault in faults:
            print(f"{act.name}, {room} of {kind} to spare: {fault}", flush=True)
    if faults:
        return "a fault"
    without = any(line.startswith(DOING_WITHOUT) for line in ended.err.splitlines())
    return "a sentence" if said else "did without" if without else "had it all"


def read_only(acts: Sequence[kill.Act], folder: Path) -> int:
    """Ask all commands of stores that nobody can write; how many faults there were."""
    by = {act.name: act for act in acts}
    wrong = 0
    disk = folder / "disk"
    run, promote = by["run"].command, by["promote"].command
    other = (*run, "--set", "train.hidden_size=5")
    reading = [
        ("status", *run[1:]),
        ("explain", "train", *run[1:]),
        ("verify",),
        ("runs",),
        ("champion",),
        ("history",),
    ]
    writing = [("night", *run[1:]), other, (*run, "--force", "evaluate"), promote, ("rollback",)]
    with mounted(disk):
        shutil.copytree(by["promote"].before, disk / "store")
        (disk / "nothing").mkdir()
        remount(disk, ro=None)
        for store, fine in (
            (disk / "store", [run, ("sample", "--length", "5"), *reading]),
            (disk / "nothing", reading),
        ):
            for command in (*fine, *writing):
                ended = forks.ran(store, *command)
                said = [line for line in ended.err.splitlines() if line.startswith("rnnlm: ")]
                if (ended.code, len(said)) != ((0, 0) if command in fine else (2, 1)) or "Traceback" in ended.err:
                    print(f"read-only, {' '.join(map(str, command))}: {ended.code}, {ended.err}", flush=True)
                    wrong += 1
    print(f"read-only: {wrong} faults")
    return wrong


@contextmanager
def mounted(disk: Path) -> Iterator[None]:
    """A small file system in memory, which goes with all in it."""
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", _options(ROOMY), "tmpfs", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", disk], check=True)


def remount(disk: Path, **options: int | None) -> None:
    """Change what it may hold, or make it read-only."""
    subprocess.run(["mount", "-o", f"remount,{_options(options)}", disk], check=True)


def refused() -> str:
    """Why no file system can be mounted here; empty where one can be."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mounted(Path(folder, "disk")):
                return ""
        except (OSError, subprocess.CalledProcessError) as error:
            return f"only root may mount a file system here ({error})"


def _options(options: Mapping[str, int | None]) -> str:
    return ",".join(name if value is None else f"{name}={value}" for name, value in options.items())


if __name__ == "__main__":
    main()
