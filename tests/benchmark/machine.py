"""What the figures were measured on: the machine, the versions, the checkout, and how busy it all was."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from stages.training import cores

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = (
    *("numpy", "pyarrow", "mxnet", "torch", "jax", "jaxlib", "prefect", "pydantic", "typer", "uvicorn"),
    *("tokenizers", "polars", "doit", "dvc"),
)


def machine() -> dict[str, Any]:
    """What stays the same from day to day."""
    return {
        "processor": _processor(),
        "cores": cores.available(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{_system()}, {platform.machine()}",
    }


def slug(described: dict[str, Any]) -> str:
    """A machine as a part of a file's name."""
    words = re.sub(r"\((R|TM)\)|CPU|Processor|@", " ", described["processor"]) + f" {described['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


@contextmanager
def described() -> Iterator[dict[str, Any]]:
    """While it holds something is measured; afterwards the dict says when, of what, and under which load."""
    facts: dict[str, Any] = {"began": _now(), **_checkout(), "load": [_load()]}
    yield facts
    facts["load"].append(_load())
    facts |= {"ended": _now(), "python": platform.python_version(), "libraries": _libraries()}


def program(name: str) -> str | None:
    """A program that belongs to this interpreter's environment, else one on the path; None where there is neither."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _load() -> float:
    """Processes that wanted a core, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def _processor() -> str:
    try:
        [name] = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)[
            :1
        ]
    except (OSError, ValueError):
        return platform.processor() or platform.machine()
    return " ".join(name.split())


def _system() -> str:
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {platform.system()} {platform.release()}"
    except OSError:
        return platform.platform()


def _checkout() -> dict[str, Any]:
    """The commit, and whether anything but earlier results differs from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-c", f"safe.directory={ROOT}", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", ".", ":!tests/benchmark/results")
        return {"commit": git("rev-parse", "HEAD"), "clean": not changed}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "clean": None}


def _libraries() -> dict[str, str]:
    """Versions of what is installed; of a program that another environment has, what it says of itself."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in ("doit", "dvc") and (path := program(name)):
                said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
                found[name] = said.split()[0] if said else "unknown"
    return found
