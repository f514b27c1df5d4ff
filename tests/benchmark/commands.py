"""Whole processes to be timed: the pipeline's four steps for make, doit and DVC, stores of ours, and what runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import corpora
from machine import program
from race import ROOT, environment

from data.store.artifact import MANIFEST
from data.store.fingerprint import digest

SETTINGS = """
[download]
corpus = {corpus}

[tokenize]
max_tokens = 20000

[train]
hidden_size = 16
epochs = 1

[evaluate]
prefixes = ["the"]
length = 8
"""
"""A run of a moment, whatever the size of its text."""
STEPS = {
    "download": (["text.txt"], ["corpus.txt"]),
    "tokenize": (["corpus.txt"], ["tokens.arrow", "vocab.arrow"]),
    "train": (["tokens.arrow", "vocab.arrow"], ["model.safetensors", "config.json", "history.arrow"]),
    "evaluate": (["model.safetensors", "config.json", "tokens.arrow"], ["metrics.json", "samples.json"]),
}
"""The four steps as the peers have them: step → the files it reads and those it writes, by copying what ours wrote."""
IDLE = {
    "make": "Nothing to be done",
    "doit": "-- evaluate",
    "dvc repro": "are up to date",
    "rnnlm run": "evaluate  cached",
}
"""Program → what it says when there is nothing to do."""
Command = tuple[list[str], Path, dict[str, str]]
"""A command line, the folder it is run in and its environment."""


def rnnlm() -> list[str]:
    """Our command: the installed one, else this checkout's as a module."""
    installed = program("rnnlm")
    return [installed] if installed else [sys.executable, "-m", "stages.cli"]


def ours(*arguments: str | Path, preset: Path, remembers: bool = True) -> Command:
    """One of our commands that takes a preset, on the store beside it; what it remembers lies there as well, or nowhere
    at all, for what is below a file cannot be written."""
    cache = preset.with_name("cache") if remembers else preset / "cache"
    more = {"RNNLM_STORE": str(preset.with_name("store")), "XDG_CACHE_HOME": str(cache)}
    if rnnlm()[0] == sys.executable:
        more["PYTHONPATH"] = str(ROOT)
    inherited = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    return [*rnnlm(), *map(str, arguments), "--preset", str(preset)], preset.parent, inherited | more


def run(command: Command) -> subprocess.CompletedProcess[str]:
    """A command that has ended, with what it said.

    Raises:
        RuntimeError: it failed.
    """
    arguments, folder, more = command
    done = subprocess.run(arguments, cwd=folder, env=more, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def timed(command: Command) -> Callable[[], float]:
    """A turn that runs a command from its start to its end, and says how many seconds that took."""
    arguments, folder, more = command

    def turn() -> float:
        began = time.perf_counter()
        subprocess.run(
            arguments, cwd=folder, env=more, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
        )
        return time.perf_counter() - began

    return turn


def store(folder: Path, size: int = 0) -> Path:
    """A run of ours in a folder, of a text of ``size`` bytes or of the sample; its preset."""
    folder.mkdir()
    text = folder / "text.txt"
    if size:
        corpora.write(text, size)
    else:
        shutil.copyfile(ROOT / "data" / "corpus" / "sample.txt", text)
    preset = folder / "tiny.toml"
    preset.write_text(SETTINGS.format(corpus=json.dumps(str(text))), encoding="utf-8")
    run(ours("run", preset=preset))
    return preset


def multiplied(preset: Path, folder: Path, many: int) -> Path:
    """A copy of a store and its preset with so many more artifacts, as other code would have made them."""
    shutil.copytree(preset.parent, folder, copy_function=os.link)
    found = sorted((folder / "store").glob(f"*/*/{MANIFEST}"))
    for number in range(many):
        path = found[number % len(found)]
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["components"]["code"] = f"{number:064x}"
        manifest["key"] = digest(manifest["components"])
        copy = path.parent.with_name(manifest["key"][:16])
        shutil.copytree(path.parent, copy, copy_function=os.link)
        (copy / MANIFEST).unlink()
        (copy / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder / preset.name


def peers(preset: Path) -> dict[str, Command]:
    """The same steps for each other program that is installed, all of them run once."""
    folder = preset.parent / "peers"
    made = folder / "made"
    made.mkdir(parents=True)
    shutil.copyfile(preset.with_name("text.txt"), folder / "text.txt")
    for file in (preset.parent / "store").glob("*/*/*"):
        shutil.copyfile(file, made / file.name)
    for name, text in (("Makefile", makefile()), ("dodo.py", dodo()), ("dvc.yaml", dvc())):
        (folder / name).write_text(text, encoding="utf-8")
    more = environment(DVC_NO_ANALYTICS="true")
    more.pop("PYTHONPATH")
    found: dict[str, Command] = {}
    for name, arguments in (("make", ["evaluate"]), ("doit", ["run"]), ("dvc repro", ["repro"])):
        if path := program(name.split()[0]):
            if name == "dvc repro":
                run(([path, "init", "--no-scm", "--quiet"], folder, more))
                run(([path, "config", "core.check_update", "false"], folder, more))
            for _, outputs in STEPS.values():
                for output in outputs:
                    (folder / output).unlink(missing_ok=True)
            found[name] = [path, *arguments], folder, more
            run(found[name])
    return found


def idle(commands: Mapping[str, Command]) -> None:
    """Make sure that each of them says that there is nothing to do."""
    for name, command in commands.items():
        done = run(command)
        said = done.stdout + done.stderr
        assert IDLE[name] in said, f"{name} has something to do:\n{said}"


def makefile() -> str:
    """For make, which goes by the files' times."""
    rules = [
        f"{outputs[0]}: {' '.join(inputs)}\n\tcp {' '.join(f'made/{output}' for output in outputs)} .\n"
        + "".join(f"{output}: {outputs[0]}\n" for output in outputs[1:])
        for inputs, outputs in STEPS.values()
    ]
    return "\n".join(["evaluate: metrics.json\n", *rules])


def dodo() -> str:
    """For doit, which goes by their times, and by their digests where these differ."""
    tasks = [
        f"def task_{name}():\n    return {{'file_dep': {inputs}, 'targets': {outputs}, "
        f"'actions': ['cp {' '.join(f'made/{output}' for output in outputs)} .']}}\n"
        for name, (inputs, outputs) in STEPS.items()
    ]
    return "\n\n".join(tasks)


def dvc() -> str:
    """For DVC, which goes by their digests and remembers those."""
    stages = {
        name: {"cmd": f"cp {' '.join(f'made/{output}' for output in outputs)} .", "deps": inputs, "outs": outputs}
        for name, (inputs, outputs) in STEPS.items()
    }
    return json.dumps({"stages": stages})  # YAML, too
