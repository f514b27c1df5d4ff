"""Rerunning when nothing changed: whole processes, beside make, doit and DVC over the same four steps."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import commands
from race import HERE, ROOT, Pair, Race, Spread, alternate, environment
from results import Part, Table

ROUNDS = 9
FLOWS = 5
MANY = 1000
LARGE = 100_000_000
IMPORTS = """
import contextlib, gc, importlib
for name in {}:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
gc.freeze()
"""
"""Ends as a flow's process does, which does not look through what it imported for garbage."""
BARE = HERE / "bare.py"
PEERS = ("make", "doit", "dvc repro")
FLOOR = (
    "The bare flow is Prefect's part: four tasks that say that they are cached (`bare.py`). With Prefect's own "
    "heartbeat a flow waits up to a second for it at its end; a run of ours has none where nothing is to be done."
)


def measure(*, full: bool) -> Part:
    """Race all that are installed, our own stores with each other, and a flow with its imports and a bare one."""
    del full
    with tempfile.TemporaryDirectory() as folder:
        small = commands.store(Path(folder) / "small")
        part = Part("Rerunning", [nothing(small), stores(small, Path(folder))])
        if find_spec("prefect"):
            beyond = flow(small)
            part.data["flow"] = {name: vars(spread) for name, spread in beyond.items()}
            rows = [[name, *(f"{figure:.2f} s" for figure in vars(spread).values())] for name, spread in beyond.items()]
            head = ["", "median", "lower quartile", "upper quartile"]
            part.tables.append(Table("A cached flow against a running server", head, rows))
            part.notes.append(FLOOR)
    if absent := [name for name in PEERS if name not in part.races[0].seconds]:
        part.notes.append(f"Left out, for it is not installed: {', '.join(absent)}.")
    installed = "the installed command" if commands.rnnlm()[0] != sys.executable else "`python -m stages.cli`"
    part.notes += [
        f"Whole processes; rnnlm is {installed}. The four steps of the others copy what ours wrote, from and to the "
        "same files; before they are timed each of them says that there is nothing to do.",
        "With nothing remembered all is read and digested again: the code, the text, and each file of the store.",
        f"`many` is a store of {MANY:,} artifacts more, `large` one of a text of {LARGE / 1e6:.0f} MB.",
    ]
    return part


def nothing(small: Path) -> Race:
    """A walk that has nothing to do, and what only looks."""
    peers = commands.peers(small)
    run = {"rnnlm run": commands.ours("run", preset=small)}
    commands.idle(peers | run)
    inherited = environment()
    ran: dict[str, commands.Command] = {
        "bare interpreter": ([sys.executable, "-I", "-S", "-c", "pass"], small.parent, inherited),
        **peers,
        **run,
        "rnnlm run, nothing remembered": commands.ours("run", preset=small, remembers=False),
        "rnnlm status": commands.ours("status", preset=small),
        "rnnlm --help": ([*commands.rnnlm(), "--help"], small.parent, run["rnnlm run"][2]),
    }
    aims = {"doit": 1.0, "dvc repro": 4.0}
    pairs = [Pair(ours, name, aim) for ours in ("rnnlm run", "rnnlm status") for name, aim in aims.items()]
    pairs.append(Pair("rnnlm run, nothing remembered", "dvc repro"))
    return race("nothing to do", ran, [*pairs, Pair("rnnlm run", "bare interpreter"), Pair("rnnlm --help", "doit")])


def stores(small: Path, folder: Path) -> Race:
    """The same walk over a small store, one of many artifacts and one of large ones."""
    many = commands.multiplied(small, folder / "many", MANY)
    large = commands.store(folder / "large", LARGE)
    ran = {
        f"{name}, {which}": commands.ours(name, preset=preset)
        for name in ("run", "status")
        for which, preset in (("small", small), ("many", many), ("large", large))
    }
    commands.idle({"rnnlm run": ran["run, many"]})
    commands.idle({"rnnlm run": ran["run, large"]})
    pairs = [
        Pair(f"{name}, {which}", f"{name}, small", 0.9) for name in ("run", "status") for which in ("many", "large")
    ]
    return race("our stores", ran, pairs)


def race(name: str, ran: dict[str, commands.Command], pairs: list[Pair]) -> Race:
    """Processes in turn."""
    seconds = alternate([commands.timed(command) for command in ran.values()], ROUNDS)
    return Race(name, dict(zip(ran, seconds, strict=True)), pairs)


def flow(preset: Path) -> dict[str, Spread]:
    """How many seconds longer a flow takes that reuses everything than imports: of its module, of all that it loads.

    Beside it a flow of Prefect alone, with its heartbeat and without, beyond all that this one loads.
    """
    with server() as address:
        more = environment(
            PREFECT_API_URL=address,
            RNNLM_STORE=str(preset.with_name("store")),
            XDG_CACHE_HOME=str(preset.with_name("cache")),
        )

        def python(*arguments: str) -> commands.Command:
            return [sys.executable, *arguments], ROOT, more

        def loading(*arguments: str, name: str) -> commands.Command:
            """What imports all that a command loads, and the module of its own flow."""
            said = commands.run(python("-X", "importtime", *arguments)).stderr
            assert "Cached" in said
            loaded = re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", said, re.MULTILINE)
            return python("-c", IMPORTS.format([*loaded, name]))

        ours = ("-m", "flows.pipeline", "--preset", str(preset))
        ran = {
            "ours": python(*ours),
            "its module": python("-c", IMPORTS.format(["flows.pipeline"])),
            "its imports": loading(*ours, name="flows.pipeline"),
            "bare": python(str(BARE)),
            "bare and still": python(str(BARE), "still"),
            "bare imports": loading(str(BARE), "still", name=BARE.stem),
        }
        taken = dict(zip(ran, alternate([commands.timed(command) for command in ran.values()], FLOWS), strict=True))
    beyond = {
        "ours, beyond the import of its module": ("ours", "its module"),
        "ours, beyond all imports": ("ours", "its imports"),
        "four bare tasks, beyond all imports": ("bare", "bare imports"),
        "four bare tasks without a heartbeat, beyond all imports": ("bare and still", "bare imports"),
    }
    return {
        name: Spread.of([whole - part for whole, part in zip(taken[flow], taken[imports], strict=True)])
        for name, (flow, imports) in beyond.items()
    }


@contextmanager
def server() -> Iterator[str]:
    """A Prefect server of our own on loopback, with a database of its own; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    with tempfile.TemporaryDirectory() as home:
        own = environment(
            PREFECT_HOME=home, PREFECT_SERVER_ANALYTICS_ENABLED="false", PREFECT_SERVER_UI_ENABLED="false"
        )
        own.pop("PREFECT_API_URL", None)
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(
            command, env=own, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait(f"{address}/health", process)
            yield address
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def wait(address: str, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Until a server answers."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError), urllib.request.urlopen(address, timeout=2) as answer:
            if answer.status == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the Prefect server does not start")
        time.sleep(0.2)
