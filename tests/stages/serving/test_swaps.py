"""A champion that changes while texts are written, one that cannot be read, and the end of a server."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from data.store import champions
from data.store.folder import Store
from stages.lm.model import LanguageModel
from stages.lm.network import one_thread
from tests.conftest import in_this_process, write_tiny
from tests.stages.serving.conftest import Running, started

PROMPT, LENGTH = "then the", 40


@pytest.fixture(scope="module")
def two(finished: Path, tmp_path_factory: pytest.TempPathFactory, tiny_settings: str, tiny_text: str) -> Path:
    """A store with two models, to be copied."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(finished, folder / "store")
    preset = write_tiny(folder, tiny_settings, tiny_text)
    in_this_process(folder / "store", "train", "--preset", preset, "--set", "train.seed=8")
    return folder / "store"


@pytest.fixture
def keys(two: Path) -> list[str]:
    return [artifact.manifest.key for artifact in Store(two).artifacts("train")]


@pytest.fixture
def server(two: Path, tmp_path: Path, keys: list[str]) -> Iterator[Running]:
    """It serves the first model as the champion of both names."""
    store = tmp_path / "store"
    shutil.copytree(two, store)
    for name in ("default", "poet"):
        promote(store, keys[0], name)
    with started(store) as running:
        yield running


def promote(store: Path, key: str, name: str = "default") -> None:
    champions.promote(Store(store), key, "a test", {}, name=name)


def text(store: Path, key: str, seed: int) -> str:
    model = LanguageModel.load(store / "train" / key[:16])
    with one_thread():
        return "".join(piece for piece, _ in model.stream(PROMPT, LENGTH, 1.0, seed))


def test_nothing_is_lost_while_the_champion_changes(server: Running, keys: list[str]) -> None:
    found: list[tuple[int, str, str]] = []
    stopped = threading.Event()

    def ask(first: int) -> None:
        seed = first
        while not stopped.is_set():
            answer = server.complete(prompt=PROMPT, max_tokens=LENGTH, seed=seed)
            found.append((seed, answer["system_fingerprint"], answer["choices"][0]["text"]))
            seed += 8

    def swapped(number: int) -> bool:
        return server.metric("rnnlm_swaps_total") == number

    def more_than(number: int) -> bool:
        return len(found) > number

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for number in range(1, 5):
        promote(server.store, keys[number % 2])
        server.waits_for(partial(swapped, number))
        server.waits_for(partial(more_than, len(found) + 20))
    stopped.set()
    for thread in threads:
        thread.join()
    assert {key for _, key, _ in found} == set(keys)
    for seed, key, said in found[:: len(found) // 30]:
        assert said == text(server.store, key, seed)
    assert sum(f"is served by the model {keys[0][:16]} now" in line for line in server.said) == 2


def test_what_is_being_written_ends_on_the_model_that_it_began_with(server: Running, keys: list[str]) -> None:
    fields = {"prompt": PROMPT, "max_tokens": 4000, "n": 16, "stream": True, "seed": 1}
    with httpx.stream("POST", f"{server.address}/v1/completions", json=fields, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        promote(server.store, keys[1])
        server.waits_for(lambda: server.health()["models"]["default"]["key"] == keys[1])
        told = [json.loads(line.removeprefix("data: ")) for line in lines if line and not line.endswith("[DONE]")]
    assert {event["system_fingerprint"] for event in told} == {keys[0]}
    assert sum(event["choices"][0]["finish_reason"] == "length" for event in told) == 16


def test_each_name_has_its_own_champion(server: Running, keys: list[str]) -> None:
    promote(server.store, keys[1], "poet")
    server.waits_for(lambda: server.health()["models"]["poet"]["key"] == keys[1])
    for name, key in (("default", keys[0]), ("poet", keys[1])):
        answer = server.complete(prompt=PROMPT, max_tokens=LENGTH, seed=2, model=name)
        assert (answer["model"], answer["system_fingerprint"]) == (name, key)
        assert answer["choices"][0]["text"] == text(server.store, key, 2)
    promote(server.store, keys[1], "novice")
    server.waits_for(lambda: "novice" in server.health()["models"])
    assert [model["id"] for model in httpx.get(f"{server.address}/v1/models").json()["data"]] == [
        *("default", "poet", "novice")
    ]


def test_where_a_champion_is_damaged_the_old_one_goes_on(server: Running, keys: list[str]) -> None:
    weights = server.store / "train" / keys[1][:16] / "model.safetensors"
    sound = weights.read_bytes()
    weights.chmod(0o644)
    promote(server.store, keys[1], "judge")  # once it is sound, as promoting demands
    server.waits_for(lambda: "judge" in server.health()["models"])
    record = server.store / "champions" / "judge.json"
    weights.write_bytes(sound[:-4] + bytes(4))
    (server.store / "champion.json").write_bytes(record.read_bytes())
    server.waits_for(lambda: server.metric("rnnlm_failed_swaps_total") == 1)
    time.sleep(0.5)
    assert server.metric("rnnlm_failed_swaps_total") == 1
    assert len([line for line in server.said if line.startswith("default goes on as it is: ")]) == 1
    answer = server.complete(prompt=PROMPT, max_tokens=LENGTH, seed=2)
    assert answer["system_fingerprint"] == keys[0]


def test_a_record_that_cannot_be_read_changes_nothing(server: Running, keys: list[str]) -> None:
    record = server.store / "champion.json"
    sound = record.read_bytes()
    record.write_bytes(b"{}")
    server.waits_for(lambda: any("cannot be seen" in line for line in server.said))
    assert server.complete(prompt=PROMPT, max_tokens=3)["system_fingerprint"] == keys[0]
    record.write_bytes(sound)
    promote(server.store, keys[1])
    server.waits_for(lambda: server.health()["models"]["default"]["key"] == keys[1])


def test_a_store_that_is_away_for_a_while_changes_nothing(server: Running, keys: list[str]) -> None:
    """As a share is that is not mounted: no name is lost, the default one least of all."""
    away = server.store.with_name("away")
    server.store.rename(away)
    server.waits_for(lambda: any("cannot be seen" in line for line in server.said))
    server.store.mkdir()
    time.sleep(0.5)
    assert server.health()["models"].keys() == {"default", "poet"}
    assert server.complete(prompt=PROMPT, max_tokens=3)["system_fingerprint"] == keys[0]
    server.store.rmdir()
    away.rename(server.store)
    promote(server.store, keys[1])
    server.waits_for(lambda: server.health()["models"]["default"]["key"] == keys[1])


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_server_that_is_asked_to_end_finishes_what_runs(server: Running, signum: int, code: int) -> None:
    found: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: found.append(server.ask(prompt=PROMPT, max_tokens=2000, n=20, seed=1)))
    asking.start()
    server.waits_for(lambda: server.metric("rnnlm_texts") == 20)
    with socket.create_connection(("127.0.0.1", server.port)):  # idle: nothing waits for it
        server.process.send_signal(signum)
        assert server.process.wait(20) == code
    asking.join()
    [response] = found
    assert response.status_code == 200
    assert all(len(choice["text"]) == 2000 for choice in response.json()["choices"])
    assert server.said[-1] == f"rnnlm: ended by {signal.Signals(signum).name}; what was being written is finished"
    assert len(server.said) == 3


def test_what_takes_longer_than_the_end_does_is_told(two: Path) -> None:
    with started(two, limits={"ENDING": 0.2}) as server:
        found: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: found.append(server.ask(prompt=PROMPT, max_tokens=8000, n=64)))
        asking.start()
        server.waits_for(lambda: server.metric("rnnlm_texts") == 64)
        server.process.terminate()
        assert server.process.wait(10) == 143
        asking.join()
        assert found[0].status_code == 503
        assert found[0].json()["error"]["type"] == "server_error"
        server.waits_for(lambda: server.said[-1] == "rnnlm: ended by SIGTERM; what was being written is cut off")


def test_a_second_signal_ends_at_once(two: Path) -> None:
    with started(two) as server:
        asking = threading.Thread(target=lambda: server.ask(prompt=PROMPT, max_tokens=8000, n=64))
        asking.start()
        server.waits_for(lambda: server.metric("rnnlm_texts") == 64)
        server.process.terminate()
        server.waits_for(lambda: server.said[-1].startswith("ending: "))
        server.process.terminate()
        assert server.process.wait(5) == 143
        asking.join()
        server.waits_for(lambda: server.said[-1] == "rnnlm: ended by SIGTERM; what was being written is cut off")


def test_a_model_may_be_named_by_its_folder(two: Path, keys: list[str]) -> None:
    with started(two.parent, "--model", str(two / "train" / keys[1][:16])) as server:
        assert server.health()["models"]["default"]["key"] == keys[1]
        assert server.complete(prompt=PROMPT, max_tokens=LENGTH, seed=1)["choices"][0]["text"] == text(two, keys[1], 1)
