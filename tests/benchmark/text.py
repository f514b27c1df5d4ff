"""Tokenizing: from text to ids beside the book's code and the libraries for it, and how far memory's own speed is."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import corpora
from race import Contender, Pair, Race, alternate
from results import Part, Table

ROUNDS = 5
SMALL, LARGE = 2_000_000, 160_000_000
"""Bytes of a text, for those who take a second for the first, and for ours alone."""
NEEDS = {"tokenizers": "tokenizers", "polars": "polars"}
"""Contender → the package that it needs."""
RACES: dict[str, tuple[dict[str, str], tuple[str, ...], float]] = {
    "characters, the book's rule": (
        {"level": "char", "normalizer": "book", "script": "latin"},
        ("book", "tokenizers", "polars", "ours"),
        50,
    ),
    "characters, the book's rule, counted": (
        {"level": "char", "normalizer": "book", "script": "latin"},
        ("book, counting", "ours, counting"),
        50,
    ),
    "characters, any Unicode as it is": (
        {"level": "char", "normalizer": "none", "script": "mixed"},
        ("nanoGPT", "tokenizers", "polars", "ours"),
        0,
    ),
    "words, the book's rule": (
        {"level": "word", "normalizer": "book", "script": "latin"},
        ("book", "tokenizers", "polars", "ours"),
        10,
    ),
}
"""Name → what is read and how, by whom, and how many times as fast as the first of them ours ought to be."""
SIZES, MOST = (1_000_000, 100_000_000, 1_000_000_000), 10_000_000_000
"""Characters of a stream."""


def measure(*, full: bool) -> Part:
    """Race all that is installed on one core, the stage on all of them, and look at the memory that a stream takes."""
    with tempfile.TemporaryDirectory() as folder:
        part = Part("Tokenizing", [raced(Path(folder), name) for name in RACES])
        part.races.append(stage(Path(folder)))
    part.data["memory"] = memory = {size: peak(size) for size in (*SIZES, *([MOST] if full else []))}
    rows = [[f"{size / 1e6:,.0f} MB", f"{bytes_ / 2**20:,.0f} MiB"] for size, bytes_ in memory.items()]
    part.tables.append(Table("Most memory of a process that counts and looks up a stream", ["stream", "memory"], rows))
    if absent := [package for package in NEEDS.values() if not find_spec(package)]:
        part.notes.append(f"Left out, for it is not installed: {', '.join(absent)}.")
    part.notes += [
        "MB of the text, from its file to the ids of all its tokens and their vocabulary, on one core. Ours keeps the "
        "pieces of the text in a file, as the stage does, and counts and looks them up there; where it only counts, it "
        "keeps none. Aims on one current core: 150 MB/s by the book's rule, 80 as it is.",
        "Before they are timed all have given the same ids, once their vocabularies are numbered alike.",
        "The last row is the whole stage, with what it writes, beside the copying of as many bytes in memory.",
    ]
    return part


def raced(folder: Path, name: str) -> Race:
    """One kind of token, by all who are installed."""
    task, who, aim = RACES[name]
    path = corpora.write(folder / "corpus.txt", SMALL, task["script"])
    return race(name, path, dict.fromkeys(who, 1), task, [Pair(who[-1], who[0], aim)])


def stage(folder: Path) -> Race:
    """The stage, with one core and with all of them, beside a copy."""
    path = corpora.write(folder / "corpus.txt", LARGE)
    who = {"ours, 1 core": 1, "ours, all cores": None, "copy": 1}
    pairs = [Pair("ours, all cores", "ours, 1 core"), Pair("ours, all cores", "copy")]
    task = {"level": "char", "normalizer": "book"}
    return race(f"the stage, {LARGE / 1e6:.0f} MB", path, who, task, pairs)


def race(name: str, path: Path, who: dict[str, int | None], task: dict[str, Any], pairs: list[Pair]) -> Race:
    """Let them read a file in turn; ``who`` says how many cores each may use."""
    task = {"path": str(path), "level": task["level"], "normalizer": task["normalizer"]}
    with ExitStack() as stack:
        racing = [
            stack.enter_context(Contender("readers", one, task, threads=cores, cores=cores))
            for one, cores in who.items()
            if one not in NEEDS or find_spec(NEEDS[one])
        ]
        read = {contender.name: contender.answer() for contender in racing}
        read.pop("copy", None)
        assert len({str(found) for found in read.values()}) == 1, read
        seconds = alternate([contender.go for contender in racing], ROUNDS)
    pairs = pairs + [Pair("ours", contender.name) for contender in racing[1:-1] if contender.name in NEEDS]
    taken = dict(zip((contender.name for contender in racing), seconds, strict=True))
    return Race(name, taken, pairs, "MB/s", path.stat().st_size / 1e6)


def peak(size: int) -> int:
    """The most memory, bytes, of a process that reads a stream of so many characters."""
    task = {"path": "", "level": "char", "normalizer": "book", "size": size}
    with Contender("readers", "stream", task, threads=1) as contender:
        contender.answer()
        return contender.peak
