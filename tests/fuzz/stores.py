"""A small store to be damaged, the commands that read it, and what is asked of how each ends."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.conftest import TEXT, TINY, write_tiny
from tests.fuzz import forked, lies
from tests.fuzz.forked import Ended

MEMORY = 1 << 29
"""Bytes that a command may take beyond what it has loaded: no file here is larger than 50 MB."""
COMMANDS: dict[str, list[str]] = {
    "status": ["status", "--preset", "PRESET"],
    "status otherwise": ["status", "--preset", "PRESET", "--set", "train.hidden_size=9"],
    "explain train": ["explain", "train", "--preset", "PRESET", "--set", "train.seed=9"],
    "explain json": ["explain", "evaluate", "--preset", "PRESET", "--json"],
    "verify": ["verify"],
    "gc --dry-run": ["gc", "--dry-run", "--days", "0", "--checkpoints"],
    "runs": ["runs"],
    "runs json": ["runs", "--json"],
    "champion": ["champion", "--all"],
    "champion json": ["champion", "--all", "--json"],
    "history": ["history"],
    "history json": ["history", "--json"],
    "sample": ["sample", "--length", "20"],
    "sample json": ["sample", "--json", "--length", "5"],
    "sample --model": ["sample", "--model", "MODEL", "--length", "20"],
    "evaluate --on": ["evaluate", "--on", "TEXT"],
    "evaluate --on --model": ["evaluate", "--on", "TEXT", "--model", "MODEL"],
    "library": [],
    "gc": ["gc", "--days", "0", "--checkpoints"],
    "rollback": ["rollback"],
    "promote": ["promote", "KEY", "--reason", "better"],
    "night": ["night", "--preset", "PRESET", "--set", "train.seed=5"],
    "longer": ["train", "--preset", "PRESET", "--set", "train.epochs=3"],
    "sweep": ["sweep", "--preset", "PRESET", "--vary", "train.hidden_size=8,9"],
    "compare": ["compare", "--preset", "PRESET", "--vary", "train.hidden_size=8,9", "--seeds", "2"],
    "run": ["run", "--preset", "PRESET"],
    "run json": ["run", "--preset", "PRESET", "--json"],
    "train again": ["train", "--preset", "PRESET", "--force", "train"],
    "evaluate again": ["run", "--preset", "PRESET", "--set", "evaluate.seed=7"],
}
"""Name → the command; those from `gc` on change the store."""
CHANGING = [*COMMANDS][[*COMMANDS].index("gc") :]
SLOW = ("sweep", "compare", "longer")
"""Commands that train several models."""
TRACES = re.compile('Traceback|Error:|File "')
COMMANDING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass
class World:
    """A store to be damaged, and what commands say of it while it is sound."""

    folder: Path
    swept: bool = True
    """Whether it holds a sweep, too."""
    documents: bool = False
    """Whether it is of several documents, read as subwords."""
    alone: bool = False
    """Whether its models are one network each, and no mixture of two with an n-gram."""
    said: dict[str, Ended] = field(default_factory=dict)
    places: dict[str, Path] = field(default_factory=dict)
    """Stage → its artifact of the run that is asked for, below the store's folder."""

    @property
    def base(self) -> Path:
        """The store."""
        return self.folder / "base"

    def __post_init__(self) -> None:
        settings = TINY if self.alone else TINY.replace("[train]", "[train]\nngram = 3\nnetworks = 2")
        self.preset = write_tiny(self.folder, settings, TEXT)
        if self.documents:
            (self.folder / "texts").mkdir()
            for number, line in enumerate(TEXT.splitlines()):
                (self.folder / "texts" / f"{number}.txt").write_text(line, encoding="utf-8")
            settings = settings.replace("[tokenize]", '[tokenize]\nlevel = "bpe"\nvocab_size = 270\nsplit = "order"')
            self.preset.write_text(f'[download]\ncorpus = "{self.folder / "texts"}"\n{settings}', encoding="utf-8")
        for options in (["--set", "train.seed=3"], ["--json"]):
            made = self._ask(["run", "--preset", "PRESET", *options], self.base)
            self._ask(["promote", "NEWEST"], self.base)
        stages = json.loads(made.out)["stages"]
        self.places = {one["name"]: Path(one["artifact"]).relative_to(self.base) for one in stages}
        self._ask(["promote", "NEWEST", "--name", "other"], self.base)
        self._ask(["night", "--preset", "PRESET", "--set", "train.seed=4"], self.base)
        if self.swept:
            self._ask(COMMANDS["sweep"], self.base)
        for name in ("baselines", "sweeps")[: 1 + self.swept]:
            self.places[name] = next((self.base / name).iterdir()).relative_to(self.base)
        self.files = sorted(path.relative_to(self.base) for path in self.base.rglob("*") if path.is_file())

    def sound(self, name: str) -> Ended:
        """What a command says of the store as it is."""
        if name not in self.said:
            store = self.copy(self.folder / "sound")
            self.said[name] = self.ask(name, store)
            assert self.said[name].code == 0, (name, self.said[name])
            shutil.rmtree(store)
        return self.said[name]

    def copy(self, place: Path) -> Path:
        """A copy of the store."""
        shutil.copytree(self.base, place, symlinks=True)
        return place

    def ask(self, name: str, store: Path) -> Ended:
        """Run one of `COMMANDS` on a store."""
        if name == "library":
            return self._call(partial(library, store / self.places["train"]), store)
        return self._ask(COMMANDS[name], store)

    def _ask(self, arguments: list[str], store: Path) -> Ended:
        words = {"PRESET": self.preset, "TEXT": self.folder / "text.txt"}
        if "NEWEST" in arguments:
            words["NEWEST"] = max((store / "train").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        if {"MODEL", "KEY"} & {*arguments}:
            words["MODEL"], words["KEY"] = store / self.places["train"], Path(self.places["train"].name)
        environment = self._environment(store)
        asked = [words.get(word, word) for word in arguments]
        return forked.command(*asked, environment=environment, cwd=self.folder, memory=MEMORY)

    def _call(self, work: Callable[[], None], store: Path) -> Ended:
        return forked.call(work, environment=self._environment(store), cwd=self.folder, memory=MEMORY)

    def _environment(self, store: Path) -> dict[str, str]:
        return {"RNNLM_STORE": str(store), "XDG_CACHE_HOME": str(self.folder / "cache"), "HOME": str(self.folder)}


def library(folder: Path) -> None:
    """What somebody does with a model's folder in a program."""
    from data.errors import RnnlmError
    from stages.lm.model import LanguageModel

    try:
        model = LanguageModel.load(folder)
        print(model.sample("then the", 20, temperature=0.5, seed=1))
        print(model.score(TEXT[:300]).loss)
    except RnnlmError as error:
        print(f"rnnlm: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def judged(world: World, name: str, ended: Ended, *, told: bool) -> Iterator[str]:
    """What is wrong with how a command ended.

    Args:
        world: which knows what it says of a sound store.
        name: of the command.
        ended: how.
        told: whether manifests say what lies there, so that figures may be others.
    """
    sentences = [line for line in ended.err.splitlines() if line.startswith("rnnlm: ")]
    if ended.code not in (0, 2):
        last = ended.err.strip().rpartition("\n")[2]
        yield f"exit code {ended.code}: {last[:200]}"
    elif TRACES.search(ended.err):
        yield f"a traceback: {ended.err[-300:]}"
    elif ended.code == 2 and (len(sentences) != 1 or not ended.err.endswith(f"{sentences[-1]}\n")):
        yield f"not one sentence: {ended.err[-300:]!r}"
    if ended.grown > MEMORY:
        yield f"{ended.grown >> 20} MiB"
    for stream in (ended.out, ended.err):
        if found := COMMANDING.search(stream.replace("\t", "").replace("\n", "")):
            at = stream.index(found[0])
            yield f"commands a terminal: {stream[max(at - 60, 0) : at + 60]!r}"
    if (
        not told
        and ended.code == 0
        and name in SAME
        and figures(ended.out) != figures(world.sound(name).out)
        and BEGINS not in ended.err
    ):
        yield f"other figures: {ended.out[:300]!r} and not {world.sound(name).out[:300]!r}"


BEGINS = "the text has no beginning"
SAME = ("sample", "sample --model", "evaluate --on", "evaluate --on --model", "library", "run", "sample json")


def figures(said: str) -> str:
    """What of an answer is the same wherever the store lies."""
    return re.sub(r"(?m)^(report:|model ).*$", "", said)


def pages(store: Path, before: dict[str, str]) -> Iterator[str]:
    """What of a report that was written since, by `digests`, is markup that nobody of ours wrote."""
    for page in (*store.glob("reports/*"), *store.glob("index.html")):
        if page.suffix not in (".html", ".md", ".svg") or not page.is_file() or page.is_symlink():
            continue
        if before.get(str(page)) == hashlib.sha256(page.read_bytes()).hexdigest():
            continue
        text = page.read_text(encoding="utf-8", errors="replace")
        if page.suffix == ".md":
            text = "\n".join(line for line in text.split("\n") if not line.startswith("    "))
            text = re.sub("`[^`]*`", "", text)
        for bad in (lies.MARKUP, "\x1b", "\x9b", "](javascript", "\u202e"):
            if bad in text:
                at = text.index(bad)
                yield f"{bad!r} in {page.name[16:]}: {text[max(at - 80, 0) : at + 40]!r}"


def digests(folder: Path) -> dict[str, str]:
    """What lies in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        known = path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)
        found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if known else str(path.lstat().st_mode)
    return found


def load() -> None:
    """What the commands load anyway, once for all of them."""
    import jinja2  # noqa: F401

    import stages.cli.app
    import stages.evaluate
    import stages.lm.model
    import stages.pipeline.run
    import stages.promotion.night
    import stages.sweep.search
    import stages.tokenize
    import stages.train
    import stages.training.bptt  # noqa: F401
