"""Completions as clients see them: their shape, and that each text is what its seed gives alone."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from stages.lm.model import LanguageModel
from stages.lm.network import one_thread
from tests.stages.serving.conftest import ROOT, Running

PROMPT = "then the"


@pytest.fixture(scope="module")
def alone(running: Running) -> LanguageModel:
    [folder] = (running.store / "train").iterdir()
    return LanguageModel.load(folder)


def text(model: LanguageModel, seed: int, length: int, temperature: float = 1.0, **how: Any) -> str:
    """What `rnnlm sample` writes behind the prompt."""
    with one_thread():
        return "".join(piece for piece, _ in model.stream(PROMPT, length, temperature, seed, **how))


def events(running: Running, **fields: Any) -> list[dict[str, Any]]:
    with httpx.stream("POST", f"{running.address}/v1/completions", json={**fields, "stream": True}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_an_answer_has_the_shape_that_clients_know(running: Running, alone: LanguageModel) -> None:
    answer = running.complete(prompt=PROMPT, max_tokens=20, seed=5)
    key = running.health()["models"]["default"]["key"]
    assert re.fullmatch(r"cmpl-\w+", answer.pop("id"))
    assert abs(answer.pop("created") - time.time()) < 60
    assert answer == {
        "object": "text_completion",
        "model": "default",
        "system_fingerprint": key,
        "choices": [{"index": 0, "text": text(alone, 5, 20), "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": len(PROMPT), "completion_tokens": 20, "total_tokens": len(PROMPT) + 20},
    }


def test_sixteen_tokens_at_temperature_1_are_what_is_not_said(running: Running) -> None:
    response = running.ask(prompt=PROMPT)
    [choice] = response.json()["choices"]
    assert len(choice["text"]) == 16
    seed = int(response.headers["rnnlm-seed"])
    again = running.complete(prompt=PROMPT, max_tokens=16, temperature=1, top_p=1, n=1, seed=seed, stop=None, user="me")
    assert again["choices"] == [choice]


@pytest.mark.parametrize(
    "how", [{"temperature": 0.0}, {"temperature": 0.5, "top_k": 5}, {"top_p": 0.7}, {"stop": ["e", "o"]}], ids=str
)
def test_a_text_is_what_its_seed_gives_alone(running: Running, alone: LanguageModel, how: dict[str, Any]) -> None:
    answer = running.complete(prompt=PROMPT, max_tokens=50, seed=3, n=4, **how)
    for number, choice in enumerate(answer["choices"]):
        assert choice["index"] == number
        assert choice["text"] == text(alone, 3 + number, 50, **how)
        assert choice["finish_reason"] == ("stop" if "stop" in how else "length")


def test_a_stream_joined_is_the_text(running: Running, alone: LanguageModel) -> None:
    told = events(running, prompt=PROMPT, max_tokens=3000, seed=1, n=3, stream_options={"include_usage": True})
    assert told.pop()["usage"] == {"prompt_tokens": 8, "completion_tokens": 9000, "total_tokens": 9008}
    assert len({event["id"] for event in told}) == 1
    assert all(event["usage"] is None and event["object"] == "text_completion" for event in told)
    for number in range(3):
        own = [event["choices"][0] for event in told if event["choices"][0]["index"] == number]
        assert "".join(choice["text"] for choice in own) == text(alone, 1 + number, 3000)
        assert [choice["finish_reason"] for choice in own] == [None] * (len(own) - 1) + ["length"]


def test_a_stream_comes_while_it_is_written(running: Running) -> None:
    told = events(running, prompt=PROMPT, max_tokens=4000, n=16)
    assert len(told) > 2 * 16
    assert "usage" not in told[0]


def test_several_prompts_are_answered_one_behind_another(running: Running) -> None:
    both = running.complete(prompt=[PROMPT, "a dog"], n=2, seed=9)
    one = running.complete(prompt="a dog", n=2, seed=9)
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in both["choices"][2:]] == [choice["text"] for choice in one["choices"]]


def test_what_the_vocabulary_lacks_is_read_and_in_no_log(running: Running) -> None:
    lines = len(running.said)
    for prompt in ("Ä漢字", "the 🙂"):
        assert running.complete(prompt=prompt, max_tokens=5)["usage"]["completion_tokens"] == 5
    assert len(running.said) == lines


def test_many_clients_at_once_each_get_their_own(running: Running, alone: LanguageModel) -> None:
    found: dict[int, str] = {}

    def ask(seed: int) -> None:
        found[seed] = running.complete(prompt=PROMPT, max_tokens=40 + seed, seed=seed)["choices"][0]["text"]

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: text(alone, seed, 40 + seed) for seed in range(24)}


def test_logarithms_are_those_of_the_model(running: Running, alone: LanguageModel) -> None:
    [choice] = running.complete(prompt=PROMPT, max_tokens=12, seed=2, logprobs=3)["choices"]
    told = choice["logprobs"]
    pieces = list(alone.stream(PROMPT, 12, 1.0, 2, probabilities=True))
    assert told["tokens"] == [piece for piece, _ in pieces] == list(choice["text"])
    assert told["text_offset"] == list(range(12))
    for logprob, (piece, probability), top in zip(told["token_logprobs"], pieces, told["top_logprobs"], strict=True):
        assert logprob == pytest.approx(math.log(probability or 0), abs=1e-4)
        assert 3 <= len(top) <= 4
        assert top[piece] == pytest.approx(logprob, abs=1e-4)
        assert list(top.values())[:3] == sorted(top.values(), reverse=True)[:3]


def test_an_echo_without_tokens_scores_the_prompt(running: Running, alone: LanguageModel) -> None:
    [choice] = running.complete(prompt="The dog", max_tokens=0, echo=True, logprobs=1)["choices"]
    told = choice["logprobs"]
    assert choice["text"] == alone.prompt("The dog")
    assert told["tokens"] == list(choice["text"])
    assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
    expected = [logprob for _, logprob in alone.log_probabilities("The dog")]
    assert told["token_logprobs"][1:] == pytest.approx(expected, abs=1e-4)
    assert told["text_offset"] == list(range(7))
    assert choice["finish_reason"] == "length"


def test_an_echo_goes_before_what_is_written(running: Running, alone: LanguageModel) -> None:
    fields = {"prompt": PROMPT, "max_tokens": 10, "seed": 4, "echo": True, "logprobs": 0}
    [choice] = running.complete(**fields)["choices"]
    assert choice["text"] == PROMPT + text(alone, 4, 10)
    assert choice["logprobs"]["top_logprobs"] is None
    assert len(choice["logprobs"]["tokens"]) == len(PROMPT) + 10
    told = events(running, **fields)
    assert "".join(event["choices"][0]["text"] for event in told) == choice["text"]
    offsets = [offset for event in told for offset in event["choices"][0]["logprobs"]["text_offset"]]
    assert offsets == choice["logprobs"]["text_offset"]


def test_the_models_are_listed(running: Running) -> None:
    listed = httpx.get(f"{running.address}/v1/models").json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("default", "model", "rnnlm")
    assert httpx.get(f"{running.address}/v1/models/default").json() == model


def test_scores_are_those_of_the_command(running: Running, here: Any, tmp_path: Path) -> None:
    lines = ["Then the cat saw 3 birds over the sea.", "x", "quite another thing"]
    (tmp_path / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    [folder] = (running.store / "train").iterdir()
    said = here("score", tmp_path / "lines.txt", "--per", "line", "--model", folder).stdout.splitlines()
    answer = running.ask("/score", text=lines).json()
    for told, line in zip(answer["scores"], map(json.loads, said), strict=True):
        rounded = {name: round(value, 6) if type(value) is float else value for name, value in told.items()}
        assert rounded.items() <= line.items()
        assert len(rounded) == len(line) - 2  # but for its number and its document's name
    assert running.ask("/score", text=lines[0]).json()["scores"] == answer["scores"][:1]


def test_what_is_done_is_counted(running: Running) -> None:
    before = running.metric("rnnlm_written_tokens_total")
    running.complete(prompt=PROMPT, max_tokens=30)
    assert running.metric("rnnlm_written_tokens_total") == before + 30
    assert running.metric('rnnlm_requests_total{route="/v1/completions",status="200"}') >= 1
    assert running.metric("rnnlm_texts") == 0
    assert running.metric("rnnlm_first_piece_seconds_count") >= 1


def test_the_page_of_the_server_shows_what_works(running: Running) -> None:
    page = (ROOT / "stages" / "serving" / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```python\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    [curl] = re.findall(r"^curl .*?'\n", page, re.DOTALL | re.MULTILINE)
    here = "http://127.0.0.1:8000"
    assert here in example
    python = [sys.executable, "-c", example.replace(here, running.address)]
    said = subprocess.run(python, capture_output=True, text=True, check=True, timeout=60).stdout
    assert len(said) == 100
    if shutil.which("curl"):
        command = shlex.split(curl.replace(here, running.address).replace("\\\n", " "))
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        assert json.loads(said)["usage"]["completion_tokens"] <= 100
