"""A command of its own: damaged artifacts, lying files and strangers' models, each through every command that reads it.

    .venv/bin/python tests/fuzz/artifacts.py [--seed S] [--runs N] [--each N] [--only WORD] [--documents] [--alone]
                                               [--say]

Each case changes one thing in a copy of a small store, of one text or of documents that are read as subwords; its
models are mixtures, or networks alone. Then commands are asked for. Each has to end with exit code 0 or with 2 and one
sentence; without a traceback, within a minute and `MEMORY`, with nothing written outside of the store, and with nothing
in what it says or writes that commands a terminal or is markup. What bytes differ from their manifest changes no figure
and no text. The suite runs a few of them, see ``test_artifacts.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from data.store import fingerprint
from tests.fuzz import lies
from tests.fuzz.forked import Ended
from tests.fuzz.lies import Lie
from tests.fuzz.stores import CHANGING, COMMANDS, SLOW, World, digests, judged, load, pages


@dataclass
class Case:
    """One thing that is changed in a store."""

    what: str
    change: Callable[[Path, Path], object]
    """Given the store and a folder outside of it."""
    commands: list[str]
    told: bool = False
    """Whether the manifests say what lies there, so that figures may be others."""


def forge(store: Path, file: Path) -> None:
    """Let the manifest of an artifact say what its file is now."""
    path = store / file.parent / "manifest.json"
    manifest = json.loads(path.read_bytes())
    content = store / file
    if content.is_file():
        manifest["outputs"][file.name] = {
            "bytes": content.stat().st_size,
            "sha256": hashlib.sha256(content.read_bytes()).hexdigest(),
        }
    path.write_text(json.dumps(manifest))


READING = {
    "download": ["verify", "status", "run", "night", "train again", "evaluate again"],
    "tokenize": [
        "verify",
        "status",
        "sample",
        "runs",
        "run",
        "night",
        "train again",
        "evaluate again",
        "sweep",
        "compare",
    ],
    "train": [*COMMANDS],
    "baselines": ["verify", "status", "run", "evaluate again"],
    "evaluate": ["verify", "status", "run", "run json", "night", "explain json"],
    "sweeps": ["verify", "gc", "sweep", "runs"],
    "champion.json": ["champion", "champion json", "sample", "rollback", "promote", "night", "gc", "runs", "runs json"],
    "champions": ["champion", "champion json", "gc", "runs", "runs json", "night", "rollback"],
    "nights": ["history", "history json", "night", "gc", "run"],
    "reports": ["run", "run json", "night", "gc", "evaluate again"],
    "checkpoints": ["status", "longer", "gc", "runs", "train again", "status otherwise", "gc --dry-run"],
    "locks": ["run", "gc", "night", "longer", "train again", "promote", "evaluate again"],
    "tmp": ["run", "gc", "train again"],
    "index.html": ["night", "gc", "history"],
}


def cases(world: World, rng: Random) -> Iterator[Case]:
    """All cases, in an order that chance gives."""
    made = [*_damaged(world, rng), *_manifests(world), *_contents(world, rng), *_beside(world)]
    rng.shuffle(made)
    yield from made


def _commands(file: Path) -> list[str]:
    return READING.get(file.parts[0] if file.parts else "tmp", ["run", "gc"])


def _damaged(world: World, rng: Random) -> Iterator[Case]:
    """Bytes that are not what a manifest says, and other things in a file's place."""
    chosen = [file for file in world.files if file.parent in world.places.values() or file.parts[0] not in world.places]
    for file in chosen:
        if size := (world.base / file).stat().st_size:
            for how, lie in lies.damaged(size, _other(world, file, rng), rng):
                yield Case(f"{file}: {how}", partial(_put, file, lie), _commands(file))
    for place in dict.fromkeys((*chosen, *(file.parent for file in chosen), *(Path(file.parts[0]) for file in chosen))):
        for how in lies.places(Path()):
            yield Case(f"{place}: {how}", partial(_replace, place, how), _commands(place))


def _other(world: World, file: Path, rng: Random) -> Path:
    """Another file of the kind."""
    return world.base / rng.choice([one for one in world.files if one != file and one.name == file.name] or [file])


def _put(file: Path, lie: Lie, store: Path, outside: Path) -> None:
    lie(store / file)


def _told(file: Path, lie: Lie, store: Path, outside: Path) -> None:
    lie(store / file)
    forge(store, file)


def _replace(place: Path, how: str, store: Path, outside: Path) -> None:
    lies.places(outside)[how](store / place)


def _manifests(world: World) -> Iterator[Case]:
    for stage, place in world.places.items():
        file = place / "manifest.json"
        before = (world.base / file).read_text()
        for how, written in lies.texts(before).items():
            yield Case(f"{file}: {how}", partial(_written, file, written), READING[stage], told=True)
        sane = json.loads(before)
        for how, change in lies.json_of(sane):
            yield Case(f"{file}: {how}", partial(_put, file, lies.edited(change)), READING[stage], told=True)
        for how, change in lies.json_of(sane, ("components",)):
            yield Case(f"{file} by its key: {how}", partial(_rekeyed, file, change), READING[stage], told=True)


def _written(file: Path, written: Callable[[], bytes], store: Path, outside: Path) -> None:
    lies.content(written())(store / file)


def _rekeyed(file: Path, change: Callable[[Any], Any], store: Path, outside: Path) -> None:
    """An artifact that is made of other things, and says so in its key."""
    manifest = change(json.loads((store / file).read_bytes()))
    try:
        key = fingerprint.digest(manifest.get("components"))
    except ValueError:
        key = "0" * 64
    (store / file).write_text(json.dumps({**manifest, "key": key}))
    (store / file.parent).rename(store / file.parent.parent / key[:16])


def _contents(world: World, rng: Random) -> Iterator[Case]:
    """Files that are what their manifest says, and mean nothing, or something else."""
    for stage, place in world.places.items():
        for path in sorted((world.base / place).iterdir()):
            if path.name == "manifest.json":
                continue
            file = path.relative_to(world.base)
            for how, lie in _lies(path, rng):
                yield Case(f"{file} and its manifest: {how}", partial(_told, file, lie), READING[stage], told=True)
    for name in ("champion.json", "champions/other.json"):
        yield from _jsons(world, Path(name), READING["champions"])
    for path in (*(world.base / "reports").glob("*.json"), *(world.base / "checkpoints").glob("*/begun.json")):
        file = path.relative_to(world.base)
        yield from _jsons(world, file, READING[file.parts[0]])
    yield from _jsons(world, Path("nights/default.jsonl"), READING["nights"])


def _jsons(world: World, file: Path, commands: list[str]) -> Iterator[Case]:
    path = world.base / file
    for how, lie in _lies(path, Random(0)):
        yield Case(f"{file}: {how}", partial(_put, file, lie), commands, told=True)


def _lies(path: Path, rng: Random) -> Iterator[tuple[str, Lie]]:
    yield from lies.damaged(path.stat().st_size, path, rng)
    if path.suffix in (".json", ".jsonl"):
        for how, written in lies.texts(path.read_text()).items():
            yield how, partial(_write, written)
        for how, change in lies.json_of(json.loads(path.read_bytes())):
            yield how, lies.edited(change)
    elif path.suffix == ".safetensors":
        for how, new in lies.safetensors_of(path.read_bytes()):
            yield how, lies.content(new)
    elif path.suffix == ".arrow":
        table = lies.opened(path)
        yield from lies.arrow_of(table)
        yield from lies.described_of(table)
    elif path.name == "corpus.txt":
        yield "escapes", lies.content((lies.HOSTILE * 200).encode())


def _write(written: Callable[[], bytes], path: Path) -> None:
    lies.content(written())(path)


def _beside(world: World) -> Iterator[Case]:
    """What nobody of ours would put into a store."""
    names = [
        "\x1b[2Jred",
        "two\nlines",
        lies.MARKUP.replace("/", "∕"),
        "-rf",
        " ",
        "a" * 255,
        "\udcff\udcfe",
        "%s%n",
        "‮",
    ]
    for name in names:
        for folder in (
            Path(),
            *world.places.values(),
            *map(Path, ("train", "champions", "nights", "reports", "locks")),
        ):
            for suffix in ("", ".json", ".jsonl", ".new"):
                file = folder / f"{name[: 255 - len(suffix)]}{suffix}"
                yield Case(f"{str(file)!r} beside", partial(_planted, file, False), _commands(file), told=True)
            yield Case(
                f"{str(folder / name)!r} a folder beside", partial(_planted, folder / name, True), _commands(folder)
            )


def _planted(file: Path, as_folder: bool, store: Path, outside: Path) -> None:
    if as_folder:
        (store / file).mkdir()
        (store / file / "manifest.json").write_text("{}")
    else:
        (store / file).write_text(lies.HOSTILE, encoding="utf-8")


def tried(world: World, case: Case, commands: list[str]) -> Iterator[tuple[str, Ended, list[str]]]:
    """A case through some commands: what each said, and what is wrong with it."""
    place = world.folder / "case"
    for name in commands:
        store, outside = place / "store", place / "outside"
        if name in CHANGING or not place.exists():
            shutil.rmtree(place, ignore_errors=True)
            outside.mkdir(parents=True)
            (outside / "victim").write_text("mine")
            world.copy(store)
            case.change(store, outside)
        before, written = digests(outside), digests(store / "reports")
        ended = world.ask(name, store)
        faults = [*judged(world, name, ended, told=case.told)]
        if digests(outside) != before:
            faults.append("wrote outside of the store")
        if name in ("run", "night", "evaluate again"):
            faults += pages(store, written)
        yield name, ended, faults
    for path in place.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(place)


@dataclass
class Findings:
    """What came of some runs."""

    cases: Counter[str] = field(default_factory=Counter)
    """By what the file belongs to."""
    codes: Counter[int] = field(default_factory=Counter)
    """Runs by their exit code."""
    grown: int = 0
    """Bytes that a run took at most."""
    seconds: float = 0.0
    """That one took at most."""
    wrong: dict[str, list[str]] = field(default_factory=dict)
    """Kind of fault → each time that it was seen."""

    def note(self, case: Case, name: str, ended: Ended, faults: list[str], seconds: float) -> None:
        """Add a run."""
        self.codes[ended.code] += 1
        self.grown, self.seconds = max(self.grown, ended.grown), max(self.seconds, seconds)
        for fault in faults:
            kind = re.sub(r"[0-9a-f]{16,}|\d+|'[^']*'", "#", fault)[:110]
            seen = self.wrong.setdefault(kind, [])
            seen.append(f"{case.what} · {name}: {fault}")
            if len(seen) == 1:
                print(f"✗ {seen[0][:600]}", flush=True)


def run(world: World, rng: Random, runs: int, *, each: int = 6, only: str = "", say: bool = False) -> Findings:
    """Try cases in an order that chance gives, each through a few of the commands that read it."""
    found = Findings()
    for case in cases(world, rng):
        if found.codes.total() >= runs:
            break
        if only not in case.what:
            continue
        some = [one for one in case.commands if one not in SLOW or rng.random() < 0.05]
        commands = sorted(rng.sample(some, min(len(some), each)), key=[*COMMANDS].index)
        found.cases[case.what.partition("/")[0].partition(":")[0]] += 1
        began = time.monotonic()
        for name, ended, faults in tried(world, case, commands):
            found.note(case, name, ended, faults, time.monotonic() - began)
            if say:
                print(f"{case.what} · {name} · {ended.code}\n{ended.out[:300]}{ended.err[-600:]}")
            began = time.monotonic()
    return found


def main() -> int:
    """Say what came of the runs that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=20_000, help="commands that are run")
    parser.add_argument("--each", type=int, default=6, help="commands for a case, of those that read it")
    parser.add_argument("--only", default="", help="cases whose description has this in it")
    parser.add_argument("--documents", action="store_true", help="a store of several documents, read as subwords")
    parser.add_argument("--alone", action="store_true", help="a store whose models have no n-gram beside the network")
    parser.add_argument("--say", action="store_true", help="what each command said")
    asked = parser.parse_args()
    quick = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="lies-", dir=quick) as folder:
        load()
        began, world = time.monotonic(), World(Path(folder), documents=asked.documents, alone=asked.alone)
        found = run(world, Random(asked.seed), asked.runs, each=asked.each, only=asked.only, say=asked.say)
    print(
        f"{found.cases.total():,} cases, {found.codes.total():,} runs in {time.monotonic() - began:.0f} s: "
        f"exit codes {dict(found.codes)}, at most {found.grown >> 20} MiB and {found.seconds:.1f} s"
    )
    print(dict(found.cases))
    for seen in sorted(found.wrong.values(), key=len, reverse=True):
        print(f"{len(seen):5} {seen[0][:400]}")
    return bool(found.wrong)


if __name__ == "__main__":
    sys.exit(main())
