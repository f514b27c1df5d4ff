"""What a client may send that cannot be answered, and what it may do instead of listening: the server lives on."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.stages.serving.conftest import SHORT, Running, connected, head

JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def _well_afterwards(running: Running) -> Iterator[None]:
    """Whatever was sent, nothing of it is left, and the next one is answered."""
    yield
    running.waits_for(lambda: running.metric("rnnlm_texts") == 0)
    assert running.complete(prompt="the", max_tokens=3)["usage"]["completion_tokens"] == 3
    assert not [line for line in running.said if "Traceback" in line or "failed" in line]


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"prompt": "a", "colour": 1}, "colour", "there is no such field"),
        ({"prompt": "a", "max_tokens": 8193}, "max_tokens", "8192"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens", "0"),
        ({"prompt": "a", "max_tokens": "5"}, "max_tokens", "integer"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens", "integer"),
        ({"prompt": "a", "max_tokens": 10**30}, "max_tokens", "8192"),
        ({"prompt": "a", "temperature": -0.5}, "temperature", "0"),
        ({"prompt": "a", "top_p": 0}, "top_p", "greater than 0"),
        ({"prompt": "a", "top_p": 1.5}, "top_p", "1"),
        ({"prompt": "a", "n": 0}, "n", "1"),
        ({"prompt": "a", "n": 65}, "n", "64"),
        ({"prompt": ["a"] * 33, "n": 2}, "n", "66"),
        ({"prompt": "a", "best_of": 2}, "best_of", "only 1"),
        ({"prompt": "a", "n": 2, "best_of": 3}, "best_of", "only 2"),
        ({"prompt": "a", "presence_penalty": 0.5}, "presence_penalty", "only 0"),
        ({"prompt": "a", "frequency_penalty": 1}, "frequency_penalty", "only 0"),
        ({"prompt": "a", "logit_bias": {"50256": -100}}, "logit_bias", "only {}"),
        ({"prompt": "a", "suffix": "b"}, "suffix", "''"),
        ({"prompt": "a", "stop": ""}, "stop", "at least 1"),
        ({"prompt": "a", "stop": ["a"] * 17}, "stop", "16"),
        ({"prompt": "a", "seed": -1}, "seed", "0"),
        ({"prompt": "a", "logprobs": 21}, "logprobs", "20"),
        ({"prompt": "a" * 60_000, "max_tokens": 0, "echo": True, "logprobs": 4}, "logprobs", "300,000"),
        ({"prompt": "a", "n": 64, "max_tokens": 1000, "logprobs": 5}, "logprobs", "384,000"),
        ({"prompt": "a", "stream": "yes"}, "stream", "boolean"),
        ({"prompt": "a", "stream_options": {"colour": 1}}, "stream_options", "no such field"),
        ({"prompt": [1, 2]}, "prompt", "token ids"),
        ({"prompt": [[1, 2], [3]]}, "prompt", "token ids"),
        ({"prompt": []}, "prompt", "at least 1"),
        ({"prompt": {"a": "b"}}, "prompt", "list"),
        ({"prompt": "a" * 65_537}, "prompt", "65,537"),
        ({"prompt": "a", "model": 5}, "model", "string"),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else "",
)
def test_a_field_that_does_not_fit_is_named(running: Running, fields: dict[str, Any], param: str, says: str) -> None:
    response = running.ask(**fields)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["message"].startswith(param)
    assert says in error["message"]


@pytest.mark.parametrize(
    "neutral",
    [
        *({"best_of": 1}, {"n": 2, "best_of": 2}, {"presence_penalty": 0}, {"frequency_penalty": 0.0}),
        *({"suffix": None}, {"suffix": ""}, {"logit_bias": None}, {"logit_bias": {}}, {"user": "me"}),
        *({"stop": None}, {"max_tokens": None}, {"stream_options": None}, {"logprobs": None}),
    ],
    ids=str,
)
def test_what_clients_send_as_a_matter_of_course_passes(running: Running, neutral: dict[str, Any]) -> None:
    running.complete(prompt="the", **neutral)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"nonsense", b"[]", b'"text"', b"null", b"\xff\xfe", b'{"prompt": "a"} x', b'{"prompt": "\xff"}'),
        *(b'{"prompt": "a", "temperature": NaN}', b'{"prompt": "a", "temperature": 1e999}'),
        *(b'{"prompt": "a", "prompt": "b"}', b'{"prompt": "\\ud800"}', b'{"seed": 1' + b"0" * 5000 + b"}"),
        *(b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"user": ' + b'{"a":' * 20 + b"1" + b"}" * 21),
        *(b'{"prompt": [' + b'"",' * 300_000 + b'""]}', b'{"text": [' + b'"",' * 300_000 + b'""]}'),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_body_that_is_no_sound_json_is_refused(running: Running, body: bytes) -> None:
    for path in ("/v1/completions", "/score"):
        response = httpx.post(running.address + path, content=body, headers=JSON)
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_what_is_not_there_is_said(running: Running) -> None:
    response = running.ask(prompt="a", model="poet")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert "default" in response.json()["error"]["message"]
    assert running.ask("/score", text="a", model="poet").status_code == 404
    for path in ("/v1/models/poet", "/v1", "/v1/models/", "/%2e%2e/etc/passwd", "/v1/chat/completions"):
        assert httpx.get(running.address + path).json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{running.address}/v1/completions").status_code == 405
    assert running.ask("/score", colour="a").json()["error"]["param"] == "text"


def test_a_text_that_takes_too_long_to_score_is_refused(running: Running) -> None:
    assert running.ask("/score", text=["a", "a" * 65_537]).json()["error"]["param"] == "text"


def test_only_json_is_taken_so_that_no_page_of_others_posts(running: Running) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = httpx.post(
            f"{running.address}/v1/completions", content=b'{"prompt": "a"}', headers={"Content-Type": kind}
        )
        assert response.status_code == 415
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    response = httpx.options(f"{running.address}/v1/completions", headers=asked)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "example.org:8000", "localhost.evil", ""])
def test_a_name_that_was_made_to_lead_here_is_refused(running: Running, host: str) -> None:
    assert httpx.get(f"{running.address}/v1/models", headers={"Host": host}).status_code == 403
    for own in ("localhost", f"localhost:{running.port}", "LOCALHOST:1", "127.0.0.1", "[::1]:80"):
        assert httpx.get(f"{running.address}/v1/models", headers={"Host": own}).status_code == 200


def test_a_prompt_of_ten_megabytes_is_refused_and_not_held(running: Running) -> None:
    body = json.dumps({"prompt": "x" * 10_000_000}).encode()
    assert httpx.post(f"{running.address}/v1/completions", content=body, headers=JSON).status_code == 413

    with connected(running) as client:  # which looks for no answer before all is sent
        client.sendall(head(len(body)) + body)
        assert rest(client).startswith(b"HTTP/1.1 413 ")

    def dribbled() -> Iterator[bytes]:
        for at in range(0, len(body), 1 << 16):
            yield body[at : at + (1 << 16)]

    assert httpx.post(f"{running.address}/score", content=dribbled(), headers=JSON).status_code == 413


def rest(client: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    said = b""
    try:
        while some := client.recv(1 << 16):
            said += some
    except ConnectionError:
        pass
    return said


def test_a_client_that_never_sends_its_body_is_told_and_let_go(running: Running) -> None:
    with connected(running) as client:
        client.sendall(head(100) + b'{"prompt": ')
        began = time.monotonic()
        assert rest(client).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < SHORT["READING"] + 1


@pytest.mark.parametrize("begun", [b"", b"GET /health HTTP/1.1\r\nHost: loc"], ids=["nothing", "half a head"])
def test_a_connection_without_a_request_is_closed(running: Running, begun: bytes) -> None:
    with connected(running) as client:
        client.sendall(begun)
        began = time.monotonic()
        assert rest(client) == b""
        assert time.monotonic() - began < SHORT["REQUEST"] + 1


def test_a_connection_that_sends_half_of_a_second_request_is_closed(running: Running) -> None:
    with connected(running) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.1)
        client.sendall(b"GET /hea")
        assert rest(client).count(b"HTTP/1.1 200 OK") == 1


def test_what_is_no_http_is_refused(running: Running) -> None:
    for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n", b"X" * 100_000):
        with connected(running) as client:
            client.sendall(nonsense)
            assert rest(client)[:12] in (b"HTTP/1.1 400", b"")


@pytest.mark.parametrize("first", ["GET /health", "GET /nowhere", "POST /v1/completions"])
@pytest.mark.parametrize("pause", [0, 0.2], ids=["at once", "later"])
def test_a_body_that_turns_out_to_be_none_is_one_bad_request(running: Running, first: str, pause: float) -> None:
    """Whether the request has been answered by then or not, nothing of it is in the log."""
    lines = len(running.said)
    head = (
        f"{first} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with connected(running) as client:
        if pause:
            client.sendall(head.encode())
            time.sleep(pause)
            client.sendall(b"no length\r\n")
        else:
            client.sendall(head.encode() + b"no length\r\n")
        assert rest(client).count(b"HTTP/1.1 ") == 1
    assert running.health()["status"] == "ok"
    assert running.said[lines:] == []


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_work_of_a_client_that_leaves_ends(running: Running, stream: bool) -> None:
    body = json.dumps({"prompt": "the", "max_tokens": 8000, "n": 64, "stream": stream}).encode()
    abandoned = running.metric("rnnlm_abandoned_total")
    with connected(running) as client:
        client.sendall(head(len(body)) + body)
        if stream:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        running.waits_for(lambda: running.metric("rnnlm_texts") == 64)
    running.waits_for(lambda: running.metric("rnnlm_texts") == 0, 3)
    assert running.metric("rnnlm_abandoned_total") == abandoned + 1


def test_clients_that_break_off_are_in_no_log(running: Running) -> None:
    lines = len(running.said)
    body = json.dumps({"prompt": "the", "max_tokens": 8000, "n": 64, "stream": True}).encode()
    for _ in range(10):
        with connected(running) as client:
            client.sendall(head(len(body)) + body)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
    running.waits_for(lambda: running.metric("rnnlm_texts") == 0)
    assert running.said[lines:] == []


def test_the_work_of_a_client_that_does_not_read_ends(running: Running) -> None:
    body = json.dumps({"prompt": "the", "max_tokens": 8000, "n": 64, "stream": True}).encode()
    abandoned = running.metric("rnnlm_abandoned_total")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(15)
        client.connect(("127.0.0.1", running.port))
        client.sendall(head(len(body)) + body)
        running.waits_for(lambda: running.metric("rnnlm_texts") == 64)
        running.waits_for(lambda: running.metric("rnnlm_abandoned_total") == abandoned + 1, SHORT["STUCK"] + 5)
        assert running.metric("rnnlm_texts") == 0


def test_more_texts_than_are_taken_may_come_back(running: Running) -> None:
    body = json.dumps({"prompt": "the", "max_tokens": 8000, "n": 64}).encode()
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connected(running)).sendall(head(len(body)) + body)
        running.waits_for(lambda: running.metric("rnnlm_texts") == 256)
        response = running.ask(prompt="a")
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["type"] == "rate_limit_error"
        assert running.health()["status"] == "ok"


def test_a_thousand_connections_do_not_hurt(running: Running) -> None:
    """This server takes 200; those beyond are told so at once, and the idle ones are soon gone."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(running)) for _ in range(400)]
        told = rest(clients[-1])
        assert told.startswith(b"HTTP/1.1 503 ")
        time.sleep(SHORT["REQUEST"] + 0.3)
        assert running.complete(prompt="the", max_tokens=3)
