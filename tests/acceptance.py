"""Accept the engine `torch` on this machine's card: its gradients, its bits, the book's training, its speed.

    python -P tests/acceptance.py [TEXT]

Needs this project's files, Python, NumPy and PyTorch, and nothing else; nothing has to be installed. TEXT is what the
preset `book` is trained on, its own being the Time Machine; without one, the short story that comes along is taken.
Five minutes. Without a card it is a rehearsal of three, in which the CPU stands in for the card and no aim counts.

Each line names the device of its figure, and says ok, behind (an aim) or failed; if one failed the exit code is 1.
"""
# ruff: noqa: E402

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
if find_spec("threadpoolctl") is None:
    # By it the engine `bptt` sets its number of threads, which moves last bits and no more: here any number will do.
    stand_in: Any = types.ModuleType("threadpoolctl")
    stand_in.ThreadpoolController = lambda: types.SimpleNamespace(limit=lambda **_: nullcontext())
    sys.modules["threadpoolctl"] = stand_in

import numpy as np
import torch

from data.errors import CorpusError
from stages.training.device import Device
from tests.card import results, speed
from tests.card.preset import training_text
from tests.card.table import CPU, Table, Trial

Part = Callable[[Trial, Table], None]
"""Its docstring is the table's heading."""


def main() -> None:
    """Try all on this machine; exit code 1 where something failed, 2 for a text that cannot be used."""
    path = Path(sys.argv[1]) if sys.argv[1:] else ROOT / "data" / "corpus" / "sample.txt"
    try:
        content, vocab_size = training_text(path)
    except (OSError, CorpusError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    if torch.cuda.is_available():
        trial = Trial(device=Device("gpu"), content=content, vocab_size=vocab_size)
    else:
        rehearsal = {"epochs": 40, "steps": 12, "tokens": 9_000, "rounds": 2}
        trial = Trial(device=CPU, content=content, vocab_size=vocab_size, **rehearsal)
    raise SystemExit(accept(trial))


def accept(trial: Trial, *parts: Part) -> bool:
    """Some parts, else all, whatever becomes of one before; whether something failed."""
    table = Table(trial)
    for part in parts or PARTS:
        print(f"\n{part.__doc__}", flush=True)
        began = time.perf_counter()
        try:
            part(trial, table)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            table.require(False, "this part ended with an error")
        print(f"{'':13}{time.perf_counter() - began:.0f} s", flush=True)
    print("\nsomething failed" if table.failed else "\nnothing failed")
    return table.failed


def machine(trial: Trial, table: Table) -> None:
    """What there is"""
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, PyTorch {torch.__version__}"
    table.note(f"{versions}; {platform.machine()}, {torch.get_num_threads()} threads", on=CPU)
    if not trial.gpu:
        table.note("PyTorch finds no card: a rehearsal on the CPU")
        return
    card = torch.cuda.get_device_properties(trial.place)
    memory = f"{card.total_memory / 2**30:.0f} GiB"
    table.note(f"{card.name}, compute capability {card.major}.{card.minor}, {memory}")
    driver = "unknown"
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--id={trial.device.index}", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    cudnn: Any = torch.backends.cudnn
    table.note(f"CUDA {torch.version.cuda}, cuDNN {cudnn.version()}, driver {driver}")


PARTS = (machine, results.gradients, results.bits, results.book, speed.speed, speed.bounds, speed.masks, speed.flow)


if __name__ == "__main__":
    main()
