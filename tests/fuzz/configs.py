"""A command of its own: configurations and command lines that are wrong in every way that we could think of.

    .venv/bin/python tests/fuzz/configs.py [CASES] [SEED] [KIND …]

Fields and presets, what a sweep varies, the environment and the options of every command, as the models of the
configuration and the command line itself list them. Each case runs `rnnlm` in this process, on a store that holds a
tiny run, and has to end within `SECONDS` and `BYTES` of memory: with what was asked for, or with exit code 2 and one
sentence, in which nothing commands a terminal. Prints what did not; a thousand cases take a minute, and the suite runs
some hundred.
"""

from __future__ import annotations

import io
import itertools
import logging
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, get_args, get_origin
from unittest.mock import patch

import typer

from data.errors import RnnlmError
from stages.cli import app as cli
from stages.config import RunConfig
from stages.pipeline import settings
from stages.training import signals

SECONDS = 30
"""That a case may take; most take some hundredths of one."""
BYTES = 2 << 30
"""That a case may add to the memory of this process."""
LONGEST = 2500
"""Bytes of a sentence: a thousand characters, spelt out at worst."""
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What commands a terminal."""

NUMBERS = [
    *("0", "-0", "-0.0", "+1", "1", "01", "1_000", "1e3", "1.0", "0.5", "-1", "2", "101", "1e-400", "5e-324"),
    *("1e-30", "0x10", "0b1", "0o7", "1e400", "-1e400", "inf", "-inf", "nan", "NaN", "Infinity", "1e", ".5", "5."),
    *("1,5", "1 "),
    *(
        str(bound + step)
        for bound in (0, 2**31, 2**32, 2**53, 2**62, 2**63, 2**64, 10**6, 10**9, 10**15)
        for step in (-1, 0, 1)
    ),
    *("9" * 5000, "1" + "0" * 400, "0." + "9" * 5000, "1e" + "9" * 500, "0x" + "f" * 5000, "٣", "１２", "²", "½", "१०"),
]
WORDS = [
    *("", " ", "\t", "\n", "true", "True", "yes", "on", "false", "None", "null", "{}", "[]", "()", "[[]]", "{a=1}"),
    *("''", '""', '"', "'", '["a"', '["a", 1]', '["a"] x', "[1, 2]", "[true]", "[1979-05-27]", "[nan]"),
    *('["\\u0000"]', '["\\ud800"]', "auto", "gpu:99999", "gpu:-1", "gpu:٣", "gpu:0\n", "cpu\n", "CPU", " cpu"),
    *("lstm\n", "LSTM", "lstm ", "rnn,gru", "\ufeffrnn", "\x1b[31mred\x1b[0m", "\x9b31m", "\u202egnp", "a\rb"),
    *("a\nrnnlm: all is well", "<script>alert(1)</script>", "{{ 7*7 }}", "${HOME}", "$(id)", "`id`", "%s%n", "{0}"),
    *("../../etc/passwd", "/dev/zero", "/dev/full", "-", "--", "~", "~nobody-of-that-name/x", "é", "e\u0301", "İ"),
    *("ß", "👩‍🚀", "\U0010ffff", "a" * 100_000, "é" * 50_000, "[" * 100_000, "=", "==", "a=b", ",", ",,", ".."),
    *("1..2", "2..1", "1..", "..2", "nan..inf", "http://", "http://[::1", "file:///", "s3://x/y"),
]
FIELDS = {
    f"{stage}.{name}": info
    for stage, section in RunConfig.model_fields.items()
    for name, info in section.annotation.model_fields.items()  # type: ignore[union-attr]
}
NAMES = [
    *("train", "train.", ".epochs", ".", "..", "train..epochs", "train.epochs.x", "Train.epochs", "train.Epochs"),
    *("x.y", "", "train.__class__", "train.model_config", "train.model_fields", "train._fits_together", "__init__.x"),
    *("copy.x", "model_dump.x", "train.epoch", "tran.epochs", "train.hiden_size", "download.corpora"),
    *("evaluate.prefix", "promotion.gain", "train.épochs", "train\n.epochs", "train.epochs\x1b[31m"),
    *(" train . epochs ", "train.epochs ", "\ufefftrain.epochs", "a" * 10_000 + ".x"),
]


@dataclass
class Outcome:
    """How a command ended."""

    code: object
    out: str
    err: str
    seconds: float
    crash: str = ""


class _Kept(io.BytesIO):
    """What is written, which whoever is done with it does not close."""

    def close(self) -> None:
        pass


Environment = dict[str, str | None]
"""Variable → its value, or None where it is not set."""


class Late(BaseException):
    """A case that takes longer than it may."""


def run(arguments: list[str], environment: Environment | None = None, stop: float = 0) -> Outcome:
    """A command line in this process, as `rnnlm` runs it, with Ctrl-C after so many seconds; nothing of it may take
    longer than `SECONDS`."""

    def late(signum: int, frame: FrameType | None) -> None:
        if time.monotonic() - began < SECONDS - 1:
            signal.raise_signal(signal.SIGINT)
        else:
            raise Late

    written, err, code, crash = _Kept(), io.StringIO(), None, ""
    out = io.TextIOWrapper(written, "utf-8")
    before = signal.signal(signal.SIGALRM, late)
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, stop or SECONDS, SECONDS)
    try:
        with (
            _signals_kept(),
            patch.dict(os.environ),
            redirect_stdout(out),
            redirect_stderr(err),
            patch.object(sys, "argv", ["rnnlm", *arguments]),
        ):
            for name, value in (environment or {}).items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            cli.main()
    except SystemExit as end:
        code = end.code
    except Late:
        crash = f"it takes longer than {SECONDS} s"
    except BaseException:
        crash = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        logging.getLogger("data").handlers.clear()
        logging.getLogger("stages").handlers.clear()
    if code in (128 + signal.SIGTERM, 128 + signal.SIGHUP):  # which was meant for all of it
        sys.exit(code)
    return Outcome(code, written.getvalue().decode(), err.getvalue(), time.monotonic() - began, crash)


@contextmanager
def _signals_kept() -> Iterator[None]:
    handlers = {signum: signal.getsignal(signum) for signum in signals.ending()}
    yield
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


def fault(outcome: Outcome) -> str:
    """What is wrong with an end; empty where it is as it must be."""
    said = outcome.err.removesuffix("\n")
    if outcome.crash:
        return outcome.crash.strip().splitlines()[-1][:300] + "\n" + outcome.crash[-1500:]
    if "Traceback" in said or "Warning: " in said:
        return "a traceback, or a library's warning"
    if outcome.code not in (0, None, 2, 130):
        return f"exit code {outcome.code}"
    if RAW.search(outcome.out + outcome.err):
        return "it commands the terminal"
    if outcome.code == 2:
        if outcome.out:
            return "a refusal on standard output"
        last = said.splitlines()[-1] if said else ""
        if not last.startswith(("rnnlm: ", "Usage: ")) and not said.startswith("Usage: "):
            return "a refusal that is no sentence"
        if len(last.encode()) > LONGEST:
            return "an endless sentence"
    return ""


# --- what is asked


class Asked:
    """Cases of every kind, drawn by a seed, on one tiny run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self.odd: Environment = {}  # what the environment of a case says besides
        self.about = ""  # what its preset holds
        self.preset = folder / "tiny.toml"
        self.base = ["--preset", str(self.preset), "--store", str(folder / "store")]
        self.commands = _commands()

    def value(self, name: str = "") -> str:
        """A value that a field, of this name for one, may be given."""
        info = FIELDS.get(name)
        near = [str(one) for one in _near(info)] if info else []
        return self.rng.choice(self.rng.choice([NUMBERS, WORDS, near or NUMBERS]))

    def name(self) -> str:
        """A field's name, or nearly one."""
        return self.rng.choice(list(FIELDS)) if self.rng.random() < 0.85 else self.rng.choice(NAMES)

    def assignment(self) -> str:
        name = self.name()
        return f"{name}={self.value(name)}" if self.rng.random() < 0.97 else name

    def fields(self) -> list[str]:
        """One field, or some that may not go together."""
        number = self.rng.choice([1, 1, 2, 3, 6])
        return ["status", *self.base, *itertools.chain(*(("--set", self.assignment()) for _ in range(number)))]

    def presets(self) -> list[str]:
        path = self.folder / "preset.toml"
        if path.is_symlink() or path.exists():
            path.unlink() if not path.is_dir() else path.rmdir()
        if self.rng.random() < 0.4:
            made = self.rng.choice(MAKERS)
            self.about = made.__name__
            made(path, self)
        else:
            content = self.rng.choice(PRESETS)
            self.about = repr(content[:60])
            path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return ["status", "--preset", str(path), "--store", str(self.folder / "store")]

    def environments(self) -> list[str]:
        """A command in an odd environment; where that says where the store is, no option does."""
        name = self.rng.choice(list(ODD))
        value = self.rng.choice(ODD[name])
        self.odd = {"RNNLM_STORE": str(self.folder / "store"), name: value and value.replace("{}", str(self.folder))}
        lines = [["runs"], ["champion"], ["--help"], ["gc", "--dry-run"], ["sample", "--length", "3"]]
        return self.rng.choice([*lines, *([command, "--preset", str(self.preset)] for command in ("status", "run"))])

    def vary(self) -> list[str]:
        """What is refused before anything is trained: each has a second field that makes no other model."""
        values = self.rng.choice(
            [
                ",".join(self.value() for _ in range(self.rng.randint(1, 4))),
                f"{self.value()}..{self.value()}",
            ]
        )
        given = ["--vary", f"{self.name()}={values}", "--vary", "evaluate.length=1,2"]
        if self.rng.random() < 0.5:
            given[:0] = ["--trials", self.rng.choice(["1", "3", *NUMBERS])]
        return [self.rng.choice(["sweep", "sweep", "compare"]), *self.base, *given]

    def trainings(self) -> list[str]:
        """What every bound allows, at its ends: it is trained, refused, or goes on until it is stopped."""
        given: list[str] = []
        while len(given) < 2 * self.rng.choice([1, 2, 3, 4]):
            name = self.rng.choice(
                [
                    name
                    for name in FIELDS
                    if name.partition(".")[0] in ("tokenize", "train", "evaluate") and name not in CHOSEN
                ]
            )
            value = self.rng.choice([*map(str, _near(FIELDS[name])), *("1", "2", "3", "17", "1000", "0.5", "true")])
            with suppress(RnnlmError):
                settings.load(str(self.preset), None, [f"{name}={value}"])
                given += ["--set", f"{name}={value}"]
        command = self.rng.choice([["run"], ["run"], ["train"], ["sample", "--untrained"]])
        return [*command, *self.base, *given]

    def lines(self) -> list[str]:
        """A command with options of its own and of others, wrong values, and what follows an option or does not."""
        command = self.rng.choice(list(self.commands))
        known = [option for options in self.commands.values() for option in options]
        line = [] if self.rng.random() < 0.05 else [command]
        for _ in range(self.rng.randint(0, 5)):
            option = (
                self.rng.choice(self.commands[command] or known) if self.rng.random() < 0.97 else self.rng.choice(known)
            )
            line.append(self.rng.choice([*[option] * 30, option[:-1], option + "x", "-" + option[2:3], option + "="]))
            if self.rng.random() < 0.7:
                line.append(self.rng.choice([*NUMBERS, *WORDS, *STRANGE]))
        if self.rng.random() < 0.1:
            line.insert(self.rng.randint(0, len(line)), self.rng.choice([*WORDS, *STRANGE]))
        line = [word for word in line if word not in ("--dask", "--checkpoints", "-")]
        if command in TRAINING:
            line += ["--preset", str(self.preset), "--set", "train.epochs=2", "--set", "train.max_tokens=0"]
        return [*line, "--store", str(self.folder / "store")] if command in STORING else line


def _near(info: Any) -> Iterator[object]:
    """The bounds of a field, and what lies just beyond; the choices that it has."""
    for bound in (getattr(rule, name, None) for rule in info.metadata for name in ("ge", "le", "gt", "lt")):
        if bound is not None:
            yield from (bound, bound - 1, bound + 1, -bound, float(bound), bound * 1.0000001, bound / 2)
    if get_origin(info.annotation) is not tuple:
        yield from get_args(info.annotation)
    yield info.default


def _commands() -> dict[str, list[str]]:
    """Command → its options, as the command line itself has them."""
    group = typer.main.get_command(cli.app)
    return {
        name: [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }


STRANGE = [
    *("caf\udce9", "\udcff\udcfe", "a\x00b"[:1], "x" * 100_000, "a\nb", "/proc/self/mem", "/dev/null/x", "/", "."),
    *("\x7f", "-1", "--help"),
]
TRAINING = ("run", "download", "tokenize", "train", "evaluate", "night", "sweep", "compare", "status", "explain")
STORING = (*TRAINING, "sample", "runs", "verify", "gc", "push", "pull", "history", "champion", "promote", "rollback")


def _fifo(path: Path, asked: Asked) -> None:
    os.mkfifo(path)


def _loop(path: Path, asked: Asked) -> None:
    path.symlink_to(path)


def _device(path: Path, asked: Asked) -> None:
    path.symlink_to(asked.rng.choice(["/dev/zero", "/dev/null", "/dev/tty", "/proc/self/mem", "/dev/stdin"]))


def _folder(path: Path, asked: Asked) -> None:
    path.mkdir()


def _unreadable(path: Path, asked: Asked) -> None:
    path.write_text("x = 1")
    path.chmod(0)


def _huge(path: Path, asked: Asked) -> None:
    with path.open("wb") as file:
        file.write(b"[train]\nepochs = 2\n#")
        file.truncate(200 << 20)


def _random(path: Path, asked: Asked) -> None:
    path.write_bytes(asked.rng.randbytes(asked.rng.randint(1, 3000)))


def _flipped(path: Path, asked: Asked) -> None:
    content = bytearray(asked.preset.read_bytes())
    for _ in range(asked.rng.randint(1, 5)):
        content[asked.rng.randrange(len(content))] ^= 1 << asked.rng.randrange(8)
    path.write_bytes(content)


def _values(path: Path, asked: Asked) -> None:
    name = asked.name()
    stage, _, one = name.partition(".")
    path.write_bytes(f"[{stage}]\n{one} = {asked.value(name)}\n".encode("utf-8", "surrogatepass"))


MAKERS = [_fifo, _loop, _device, _folder, _unreadable, _huge, *[_random] * 2, *[_flipped] * 8, *[_values] * 12]
PRESETS: list[str | bytes] = [
    *("", "\n", "#", "[train", "[train]\n[train]", "[train]\nepochs=1\nepochs=2", "train = 3", "train = []"),
    *("train = {}", "[[train]]", "[train]\nepochs = 1979-05-27T07:32:00Z", "[train]\nepochs = 07:32:00"),
    *("[train]\nepochs = 1979-05-27", "x" * 100_000, "[train.epochs]\nx = 1", "[train.epochs.x.y]", "epochs = 3"),
    *("train.epochs = 3", '"train"."epochs" = 3', "'' = 1", '"" = {}', "[train]\nepochs = 3\r\n"),
    *("[train]\repochs = 3", "[train]\nepochs = 3\x00", "[train]\n# \x1b[31m", '[train]\n"\x1b[31m" = 1'),
    *('[train]\n"\\u001b[31m" = 1', '["\\u202e"]', '[train]\ncell = "\\u001b]0;x\\u0007"'),
    *('[download]\ncorpus = "\\u0000"', '[evaluate]\nprefixes = "the"', "[evaluate]\nprefixes = [[[]]]"),
    *("[evaluate]\nprefixes = {}", "[download]\nheaders = [1]", f"x = {'[' * 100_000}", f"x = {'{a=' * 20_000}"),
    *(f"[{'a.' * 50_000}b]", f"{'a.' * 3_000}b = 1", f"x = {'9' * 100_000}"),
    *(f"[train]\nepochs = {'[' * 900}{']' * 900}", f"[train]\nepochs = 0x{'f' * 100_000}"),
    *(f'[train]\n"{"a" * 100_000}" = 1', "".join(f"[a{number}]\n" for number in range(20_000))),
    *("[train]\n" + "".join(f"f{n} = 1\n" for n in range(20_000)),),
    *("[train]\nepochs = 3\n".encode(code) for code in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig")),
    *(b"\xff\xfe", b"[train]\nepochs = \xe9", b"\xef\xbb\xbf\xef\xbb\xbf[train]", b"\x1f\x8b\x08\x00"),
    *(b"\x00" * 1000, "[train]\nepochs = inf", "[train]\nepochs = -nan", "[train]\nlearning_rate = 1e400"),
    *("[train]\nseed = true", "[train]\nvariational = 1"),
]

ODD: dict[str, Sequence[str | None]] = {
    "HOME": [None, "", "/", "/nowhere", "relative", "a\nb", "\udcff", "x" * 100_000],
    "RNNLM_STORE": [
        *("", " ", "/dev/null", "/dev/null/x", "/proc/x", "http://h/x", "s3://b", "~nobody-x/y", "\udcff/x"),
        *("x" * 5000, "a\x1b[31m", "{}/tiny.toml"),
    ],
    "RNNLM_REMOTE": [
        *("", " ", "x", "s3://", "s3://b\n/x", "http://me:pw@h/", "file:///tmp", "s3://b/x?y=z", "\udcff"),
        *("s3://b/../x", "s3://" + "b" * 100_000),
    ],
    "RNNLM_PULL_ONLY": ["", "0", "no", "\udcff"],
    "XDG_CACHE_HOME": ["", "relative", "/dev/null", "/proc", "\udcff", "/" + "x" * 5000, "{}/tiny.toml"],
    "XDG_DATA_HOME": ["", "relative", "/dev/null", "\udcff"],
    **{name: ["", "0", "-1", "x", "9" * 5000, "1e3", "٣"] for name in ("COLUMNS", "LINES", "OMP_NUM_THREADS")},
    **{
        name: ["", "dumb", "\x1b[31m", "1", "-1", "::", "x://", "../../etc/passwd", "complete_bash", "\udcff"]
        for name in (
            *(
                "TERM",
                "NO_COLOR",
                "FORCE_COLOR",
                "CLICOLOR_FORCE",
                "LANG",
                "LC_ALL",
                "TZ",
                "PYTHONIOENCODING",
                "TMPDIR",
            ),
            *(
                "HTTP_PROXY",
                "ALL_PROXY",
                "NO_PROXY",
                "SSL_CERT_FILE",
                "AWS_REGION",
                "TYPER_USE_RICH",
                "_RNNLM_COMPLETE",
            ),
        )
    },
}
"""Variable of the environment → its odd values."""


CHOSEN = ("train.engine", "train.device")
"""What would load another engine."""
KINDS = ("fields", "presets", "vary", "lines", "environments", "trainings")


@dataclass
class Tally:
    """What a round of cases came to."""

    cases: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def note(self, kind: str, line: list[str], about: str, outcome: Outcome) -> None:
        self.cases[kind] += 1
        self.ended["refused" if outcome.code == 2 else "stopped" if outcome.code == 130 else "worked"] += 1
        if found := fault(outcome):
            said = [word if len(word) < 200 else f"{word[:60]}…({len(word)})" for word in line]
            self.faults.append(f"{kind}: {said!r} {about[:300]}\n  {found}\n  {outcome.err[-300:]!r}")


def fuzz(folder: Path, cases: int, seed: int, kinds: Sequence[str] = KINDS) -> Tally:
    """So many cases of each kind, which a seed draws."""
    asked, tally = Asked(folder, seed), Tally()
    for kind in kinds:
        for _ in range(cases):
            asked.odd, asked.about = {}, ""
            line = getattr(asked, kind)()
            tally.note(kind, line, f"{asked.odd or asked.about}", run(line, asked.odd, 2 if kind == "trainings" else 0))
    return tally


def main() -> None:
    """Print what was run and what went wrong; exit code 1 where anything did."""
    cases, seed = (int(given) for given in [*sys.argv[1:3], *("1000", "0")[len(sys.argv) - 1 :]])
    soft = resource.getrlimit(resource.RLIMIT_AS)[1]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        os.chdir(folder)
        (folder / "text.txt").write_text("the cat saw a bird over the sea.\n" * 60)
        (folder / "tiny.toml").write_text(TINY.format(folder=folder))
        made = run(["run", "--preset", str(folder / "tiny.toml"), "--store", str(folder / "store")])
        assert made.code in (0, None), made
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, soft))
        tally = fuzz(folder, cases, seed, sys.argv[3:] or KINDS)
    print(*tally.faults, sep="\n\n")
    print(f"\n{tally.cases.total():,} cases ({dict(tally.cases)}): {dict(tally.ended)}, {len(tally.faults)} faults")
    sys.exit(bool(tally.faults))


TINY = """
[download]
corpus = "{folder}/text.txt"

[tokenize]
train_share = 0.8
valid_share = 0.1
test_share = 0.1

[train]
engine = "bptt"
hidden_size = 8
batch_size = 4
num_steps = 8
epochs = 2

[evaluate]
prefixes = ["the"]
length = 8
"""

if __name__ == "__main__":
    main()
