"""Serving: requests and characters per second of `rnnlm serve`, how long they take, and nothing lost in a swap."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
from race import environment
from results import Part, Table, number

from stages.lm.model import LanguageModel
from stages.lm.network import one_thread

RNNLM = (sys.executable, "-m", "stages.cli")
"""This checkout's, whatever is installed."""
CLIENTS = (1, 8, 64)
SECONDS = 20.0
"""That each number of clients asks for."""
PROMPT, LENGTH = "the sea", 200
"""Of each request; its seed is another one each time."""
ALONE = 8
"""Texts that are written one by one, to compare."""
SWAPS = 5
CHECKED = 16
"""Answers of each load that are compared, to the last character, with what their seed writes alone."""


@dataclass
class Load:
    """What some clients got."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    answers: list[tuple[int, str, str]] = field(default_factory=list)
    """Seed, key of the model, text."""
    lost: list[str] = field(default_factory=list)

    def row(self, name: str, alone: float) -> list[str]:
        """As a row of the table; ``alone`` are characters per second."""
        characters = sum(len(text) for _, _, text in self.answers) / self.seconds
        late = sorted(self.latencies)[int(0.99 * len(self.latencies))] if self.latencies else 0.0
        figures = (len(self.answers) / self.seconds, characters, characters / alone)
        times = (1000 * statistics.median(self.latencies or [0.0]), 1000 * late)
        return [name, *map(number, (*figures, *times)), str(len(self.lost))]


def measure(*, full: bool) -> Part:
    """Load a server of the preset `sample` with ever more clients, and swap its champion under the most."""
    del full
    part = Part("Serving")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        models = [trained(store, seed) for seed in (0, 1)]
        promote(store, models[0])
        alone = one_by_one(models[0])
        with server(store) as address:
            found = {str(clients): load(address, clients) for clients in CLIENTS}
            name = f"{CLIENTS[-1]}, {SWAPS} swaps"
            found[name] = load(address, CLIENTS[-1], [partial(promote, store, models[1 - n % 2]) for n in range(SWAPS)])
            swapped = int(counter(address, "rnnlm_swaps_total"))
        keys = {json.loads((model / "manifest.json").read_text(encoding="utf-8"))["key"]: model for model in models}
        for one in found.values():
            check(one, keys)
    head = ["clients", "requests/s", "characters/s", "× one by one", "median ms", "99 % ms", "lost"]
    rows = [one.row(name, alone) for name, one in found.items()]
    part.tables.append(Table(f"Completions of {LENGTH} characters, temperature 1", head, rows))
    part.data = {"one by one": alone, "swaps": swapped}
    part.notes += [
        f"The preset `sample`, trained twice. One by one its texts are written at {number(alone)} characters per "
        "second, on one thread, by `LanguageModel.sample`. Server and clients share the machine.",
        f"{CHECKED} answers of each row were compared with what their seed writes alone, by the model that they name: "
        f"all equal. The server made {swapped} swaps.",
    ]
    return part


def trained(store: Path, seed: int) -> Path:
    """The folder of a model of the preset."""
    command = [*RNNLM, "train", "--json", "--store", str(store), "--set", f"train.seed={seed}"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return Path(json.loads(done.stdout)["stages"][-1]["artifact"])


def promote(store: Path, model: Path) -> None:
    """Make a model the champion."""
    command = [*RNNLM, "promote", str(model), "--store", str(store)]
    subprocess.run(command, env=environment(), capture_output=True, check=True)


def one_by_one(model: Path) -> float:
    """Characters per second of texts that are written one after another."""
    loaded = LanguageModel.load(model)
    with one_thread():
        loaded.sample(PROMPT, LENGTH, 1.0, 0)
        began = time.perf_counter()
        for seed in range(ALONE):
            loaded.sample(PROMPT, LENGTH, 1.0, seed)
        return ALONE * LENGTH / (time.perf_counter() - began)


@contextmanager
def server(store: Path) -> Iterator[str]:
    """A server on a port that is free; its address."""
    command = [*RNNLM, "serve", "--port", "0", "--store", str(store)]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        said = process.stderr.readline()
        [address] = re.findall(r" at (http://\S+)$", said) or [""]
        assert address, said
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield address
    finally:
        process.terminate()
        process.wait(60)


def counter(address: str, name: str) -> float:
    """A figure of the server's metrics."""
    text = httpx.get(f"{address}/metrics").text
    return float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0])


def load(address: str, clients: int, meanwhile: Sequence[Callable[[], None]] = ()) -> Load:
    """Have so many clients ask, each again as soon as it was answered.

    Args:
        address: of the server.
        clients: threads.
        meanwhile: is done one after the other, spread over the time.
    """
    found, until = Load(), time.perf_counter() + SECONDS

    def ask(client: httpx.Client, first: int) -> None:
        for seed in range(first, 1 << 31, clients):
            began = time.perf_counter()
            if began > until:
                return
            fields = {"prompt": PROMPT, "max_tokens": LENGTH, "seed": seed}
            try:
                answer = client.post("/v1/completions", json=fields).raise_for_status().json()
                found.answers.append((seed, answer["system_fingerprint"], answer["choices"][0]["text"]))
            except (httpx.HTTPError, KeyError, ValueError) as error:
                found.lost.append(repr(error))
            found.latencies.append(time.perf_counter() - began)

    with httpx.Client(base_url=address, timeout=120, limits=httpx.Limits(max_connections=clients)) as client:
        threads = [threading.Thread(target=ask, args=(client, first)) for first in range(clients)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for do in meanwhile:
            time.sleep(SECONDS / (2 * len(meanwhile)))
            do()
        for thread in threads:
            thread.join()
    found.seconds = time.perf_counter() - began
    return found


def check(found: Load, keys: dict[str, Path]) -> None:
    """See that answers are what their seeds write alone."""
    for seed, key, text in found.answers[:: max(1, len(found.answers) // CHECKED)]:
        with one_thread():
            written = LanguageModel.load(keys[key]).stream(PROMPT, LENGTH, 1.0, seed)
            assert text == "".join(piece for piece, _ in written), (seed, key)
