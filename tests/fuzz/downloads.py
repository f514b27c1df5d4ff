"""One corpus through the command line in a process of its own, and what must hold of that whatever the corpus is."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import httpx  # noqa: F401 (what a command loads is loaded here once, and not in each of its processes)
import numpy as np

from data.corpus import catalogue
from data.store import mirror, nights  # noqa: F401
from data.tables.tokens import IndexTable
from data.tables.vocab import Vocab
from stages import download
from stages.cli.app import main
from stages.pipeline import run  # noqa: F401
from tests.fuzz import forked
from tests.fuzz.forked import Ended

ROOT = Path(__file__).parents[2]
LIMIT = 8 << 20
"""Bytes that a corpus may have here, in place of four gigabytes."""
MEMORY = 300 << 20
"""Bytes that a download may take beyond what is loaded: xz may ask for 256 MiB (`XZ_MEMORY`)."""
SPACE = 1 << 32
"""… and of addresses, some of which each thread maps and never uses."""
LOADED = 90 << 20
"""Bytes that a command takes which downloads next to nothing."""
SECRET = "s3cr3t-0f-n0b0dy"
COMMANDING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

Text: TypeAlias = bytes | Callable[[bytes], bool] | None
"""What has to come out: this, or what this says yes to; None where nothing may."""


@dataclass
class Place:
    """A store in which an earlier text lies, and folders that nothing may be written to."""

    folder: Path
    prepare: Callable[[], None] = lambda: None
    """Called in the process of each command, before it."""
    real: bool = False
    """Whether commands are started as a user does, with a user's patience and as many bytes to a text."""
    tried: int = 0
    refused: int = 0
    longest: float = 0.0
    """Seconds that a command took."""
    largest: int = 0
    """Bytes that one took beyond what it had loaded."""
    problems: list[str] = field(default_factory=list)
    sentences: dict[str, str] = field(default_factory=dict)
    """What the first of each kind of refusal said, by its words without figures and names."""

    def __post_init__(self) -> None:
        for name in ("store", "here", "tmp", "cache", "home"):
            (self.folder / name).mkdir()
        (self.folder / "earlier.txt").write_bytes(b"An earlier text.\n" * 100)
        ended = self._command("download", "--corpus", str(self.folder / "earlier.txt"), "--json")
        assert ended.code == 0, ended.err
        self._earlier = self._downloads()

    def attempt(
        self,
        what: str,
        corpus: str,
        text: Text,
        *settings: str,
        stdin: Callable[[], int] | None = None,
        seconds: float = 60.0,
        either: bool = False,
        said: str = "",
    ) -> Ended:
        """Download a corpus, and note what is wrong with that.

        Args:
            what: names the case.
            corpus: as a user names it.
            text: that has to come out.
            settings: more arguments.
            stdin: gives the command's standard input, -1 for none.
            seconds: after which it hangs.
            either: a refusal will do as well.
            said: words that a refusal has to have.
        """
        before, began = self._downloads(), time.monotonic()
        again = ("--json", "--force", "download")
        ended = self._command("download", "--corpus", corpus, *again, *settings, stdin=stdin, seconds=seconds)
        self.tried += 1
        self.refused += ended.code == 2
        self.longest = max(self.longest, time.monotonic() - began)
        self.largest = max(self.largest, ended.grown)
        wrong = [*_of_a_process(ended), *self._of_the_folders(ended, before)]
        if ended.code == 0 and not wrong:
            (stage,) = json.loads(ended.out)["stages"]
            wrong += _of_a_text((Path(stage["artifact"]) / "corpus.txt").read_bytes(), text)
        elif ended.code == 2:
            sentence = ended.err.splitlines()[-1][:300] if ended.err else ""
            self.sentences.setdefault(re.sub(r"'[^']*'|[0-9,.]+|https?://\S+|/\S+", "#", sentence), sentence)
            if text is not None and not either:
                wrong.append("is refused")
            if said not in ended.err and not self.real:
                wrong.append(f"does not say {said!r}")
        if wrong:
            self._note(f"{what}: {'; '.join(wrong)}", ended)
        return ended

    def read(self, what: str, corpus: str, text: bytes) -> None:
        """Tokenize a text, and see that its ids are its characters."""
        kept = ("--set", "tokenize.normalizer=none", "--set", "tokenize.fit_vocab_on=all")
        ended = self._command("tokenize", "--corpus", corpus, "--json", *kept)
        plain = re.sub("\r\n?", "\n", text.decode("utf-8-sig"))
        if ended.code == 0:
            made = Path(json.loads(ended.out)["stages"][-1]["artifact"])
            tokens = np.array(Vocab.read(made / "vocab.arrow").tokens, object)
            if "".join(tokens[IndexTable.open(made / "tokens.arrow").ids]) != plain:
                self._note(f"{what}: is tokenized as another text", ended)
        elif ended.code != 2 or len(plain) > 1:
            self._note(f"{what}: is not tokenized", ended)

    def forget(self) -> None:
        """Remove what was downloaded but for the earlier text, so that looking at it stays quick."""
        for path in (self.folder / "store" / "download").iterdir():
            if not any(name.startswith(f"{path.name}/") for name in self._earlier):
                for one in path.iterdir():
                    one.unlink()
                path.rmdir()

    def summary(self, sentences: bool) -> int:
        """Print what came out; the exit code."""
        for sentence in sorted(self.sentences.values()) if sentences else ():
            print(f"  {sentence.encode('ascii', 'backslashreplace').decode()}")
        print(
            f"{self.tried:,} cases, {self.refused:,} refused in one sentence, {self.tried - self.refused:,} taken, "
            f"{self.largest >> 20} MiB at most, {self.longest:.1f} s at most, {len(self.problems)} problems"
        )
        return len(self.problems) > 0

    def _note(self, what: str, ended: Ended) -> None:
        tail = ended.err[-1500:].encode("ascii", "backslashreplace").decode()
        self.problems.append(f"{what}; exit code {ended.code}: {tail}")
        print(self.problems[-1], flush=True)

    def _command(self, *arguments: str, stdin: Callable[[], int] | None = None, seconds: float = 60.0) -> Ended:
        """Run ``rnnlm`` with its store, temporary files and cache in this place."""
        environment = {
            **{"RNNLM_STORE": str(self.folder / "store"), "TMPDIR": str(self.folder / "tmp"), "SECRET": SECRET},
            **{"XDG_CACHE_HOME": str(self.folder / "cache"), "HOME": str(self.folder / "home"), "no_proxy": "*"},
        }
        here = self.folder / "here"
        if self.real:
            return started(arguments, {**os.environ, **environment}, here, stdin, seconds)

        def work() -> None:
            catalogue.MAX_BYTES = LIMIT
            vars(download)["MAX_BYTES"] = LIMIT
            self.prepare()
            if stdin is not None and (number := stdin()) >= 0:
                os.dup2(number, 0)
            elif stdin is not None:
                os.close(0)
                vars(sys)["stdin"] = None
            sys.argv = ["rnnlm", *arguments]
            main()

        return forked.call(work, environment=environment, cwd=here, memory=SPACE, seconds=seconds)

    def _of_the_folders(self, ended: Ended, before: Mapping[str, str]) -> Iterator[str]:
        for name in ("here", "tmp", "home", "store/tmp"):
            for left in (self.folder / name).glob("*"):
                yield f"leaves {left.name!r} in {name}"
        after = self._downloads()
        if ended.code != 0 and after != before:
            yield "is refused and changes the store"
        if not self._earlier.items() <= after.items():
            yield "changes the earlier text"
        for path in (self.folder / "store").rglob("*"):
            if path.is_file() and path.stat().st_size < LIMIT and SECRET.encode() in path.read_bytes():
                yield f"writes a secret to {path.name}"

    def _downloads(self) -> dict[str, str]:
        """Path → digest, of all that was downloaded."""
        folder = self.folder / "store" / "download"
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "used"
        }


def _of_a_process(ended: Ended) -> Iterator[str]:
    lines = ended.err.split("\n")
    said = [line for line in lines if line.startswith("rnnlm: ")]
    if ended.code < 0:
        yield "hangs or is killed"
    elif ended.code not in (0, 2):
        yield "ends otherwise than by 0 or 2"
    elif ended.code == 2 and (len(said) != 1 or lines[-2:] != [said[0], ""] or len(said[0]) > 1100):
        yield "does not end in one sentence"
    if "Traceback" in ended.err:
        yield "has a traceback"
    if any(COMMANDING.search(line) for line in (*lines, *ended.out.split("\n"))):
        yield "commands the terminal"
    if SECRET in ended.out + ended.err:
        yield "tells a secret"
    if ended.grown > MEMORY:
        yield f"takes {ended.grown >> 20} MiB"


def _of_a_text(found: bytes, text: Text) -> Iterator[str]:
    if text is None:
        yield f"is taken, as {found[:60]!r}"
    elif isinstance(text, bytes) and found != text:
        yield f"gives another text: {found[:60]!r} in place of {text[:60]!r}"
    elif callable(text) and not text(found):
        yield f"gives a text that it cannot be: {len(found)} bytes, {found[:60]!r}"


def started(
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    here: Path,
    stdin: Callable[[], int] | None,
    seconds: float,
) -> Ended:
    """Run ``rnnlm`` as a user does, with bounds on its time and its addresses."""
    given = stdin() if stdin else os.open(os.devnull, os.O_RDONLY)

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
        if given < 0:
            os.close(0)

    streams = [os.memfd_create(name) for name in ("out", "err")]
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.cli", *arguments],
        cwd=here,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdin=given if given >= 0 else None,
        stdout=streams[0],
        stderr=streams[1],
        preexec_fn=bound,
    )
    handle = os.pidfd_open(process.pid)
    if not select.select([handle], [], [], seconds)[0]:
        os.kill(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    for number in (handle, *([given] if given >= 0 else [])):
        os.close(number)
    texts = []
    for stream in streams:
        with os.fdopen(stream, "rb") as file:
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ended(process.returncode, texts[0], texts[1], max((usage.ru_maxrss << 10) - LOADED, 0))


def arguments() -> argparse.Namespace:
    """What a command of these is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=400, help="of those that chance makes")
    parser.add_argument("--processes", type=int, default=20, help="of them, started as a user does")
    parser.add_argument("--only", default="", help="those whose name has it")
    parser.add_argument("--sentences", action="store_true", help="print each kind of refusal once")
    return parser.parse_args()
