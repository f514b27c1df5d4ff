"""What the fast paths are worth: each beside its peers, in turn, as paired ratios with their spread.

    .venv/bin/python tests/benchmark [PART …] [--full] [--results FOLDER]

The parts are `training`, `text`, `sampling`, `scoring`, `serving`, `rerunning` and `growth`; all of them unless some
are named. ``--full`` goes to a stream of 10 GB and a corpus of 1 GB. The peers come with

    .venv/bin/pip install -c requirements.txt -r requirements-torch.txt -r requirements-benchmark.txt

and what is not installed is left out, and said. What comes out is printed, and kept in ``tests/benchmark/results``: a
page and its figures as JSON, one of each for a day and a machine. A part that runs again that day takes the place of
what it gave before. Ratios hold on other machines, absolute figures do not. Nothing here is a test: a busy machine
fails no one.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]  # what is measured is this checkout, whatever is installed

import machine  # noqa: E402
import results  # noqa: E402

PARTS = ("training", "text", "sampling", "scoring", "serving", "rerunning", "growth")


def main() -> None:
    """Run the parts, and keep what each gives as soon as it has ended."""
    parser = argparse.ArgumentParser(prog="benchmark", description="Our fast paths beside their peers, in turn.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--full", action="store_true", help="go to a stream of 10 GB and a corpus of 1 GB: half an hour more"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results", metavar="FOLDER", help="where they are kept")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]}: {', '.join(PARTS)}")
    document = results.Document(chosen.results)
    for name in PARTS:
        if name in (chosen.parts or PARTS):
            with machine.described() as circumstances:
                part = importlib.import_module(name).measure(full=chosen.full)
            print(document.keep(name, part, circumstances), flush=True)
    print(f"kept in {document.path}")


if __name__ == "__main__":
    main()
