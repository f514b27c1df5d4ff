"""Which pin has no wheel where: asks the package index for each of them, for every Python and platform in the table.

    .venv/bin/python tests/wheels.py [FILE …]

The files are requirements.txt and requirements-dev.txt unless others are named. It needs the network, room for what is
fetched (it is removed at the end), and no interpreter but its own: pip downloads what it would install there.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
FILES = ("requirements.txt", "requirements-dev.txt")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ABSENT = re.compile(r"No matching distribution found for (\S+)")


@dataclass(frozen=True)
class Platform:
    """A kind of machine: how a marker calls it, and which wheels it takes."""

    name: str
    sys_platform: str
    machine: str
    tags: tuple[str, ...]

    def pins(self, lines: Iterable[str], python: str) -> list[str]:
        """Those of a file's lines that are for this platform and Python."""
        environment = {
            **{"implementation_name": "cpython", "platform_python_implementation": "CPython"},
            **{"python_version": python, "python_full_version": f"{python}.0"},
            **{"sys_platform": self.sys_platform, "platform_machine": self.machine},
        }
        found = map(Requirement, lines)
        return [f"{one.name}{one.specifier}" for one in found if not one.marker or one.marker.evaluate(environment)]


def linux(name: str, machine: str) -> Platform:
    """One with glibc 2.28 (2018)."""
    # pip takes each of these tags as it stands, and an older glibc's wheels only where they are named too.
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(28, 4, -1)]
    old = [f"manylinux{year}_{machine}" for year in ("2014", "2010", "1")]
    return Platform(name, "linux", machine, (*tags, *old))


PLATFORMS = (
    linux("Linux x86-64", "x86_64"),
    linux("Linux ARM", "aarch64"),
    Platform("macOS 14 ARM", "darwin", "arm64", ("macosx_14_0_arm64",)),
    Platform("macOS 14 Intel", "darwin", "x86_64", ("macosx_14_0_x86_64",)),
)


def main() -> None:
    """Print a row per platform and Python; exit code 1 where a wheel is lacking."""
    files = [Path(name) for name in sys.argv[1:]] or [ROOT / name for name in FILES]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    print("| platform | Python | pins | without a wheel |\n|---|---|--:|---|", flush=True)
    missing = False
    with tempfile.TemporaryDirectory() as folder:
        for platform, python in product(PLATFORMS, PYTHONS):
            pins = platform.pins(lines, python)
            lacking = without_wheel(pins, platform, python, folder)
            missing |= bool(lacking)
            print(f"| {platform.name} | {python} | {len(pins)} | {', '.join(lacking) or 'none'} |", flush=True)
    sys.exit(missing)


def without_wheel(pins: list[str], platform: Platform, python: str, folder: str) -> list[str]:
    """Which pins pip finds no wheel for; it stops at the first, and so is asked again without that one."""
    lacking: list[str] = []
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
    command += [f"--python-version={python}", *(f"--platform={tag}" for tag in platform.tags)]
    while True:
        wanted = [pin for pin in pins if pin not in lacking]
        done = subprocess.run([*command, *wanted], stderr=subprocess.PIPE, text=True)
        if not done.returncode:
            return lacking
        absent = ABSENT.search(done.stderr)
        if absent is None or absent[1] not in wanted:
            sys.exit(done.stderr)
        lacking.append(absent[1])


if __name__ == "__main__":
    main()
