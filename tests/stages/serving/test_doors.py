"""Who may ask a server, and with what it does not even start."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from tests.conftest import in_this_process
from tests.stages.serving.conftest import Running, started


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
def test_other_machines_are_let_in_with_a_token_only(host: str, finished: Path) -> None:
    done = in_this_process(finished, "serve", "--host", host, code=2)
    assert "RNNLM_TOKEN" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("token", ["passé", "two words", "line\n", "\udcff"], ids=ascii)
def test_a_token_that_clients_cannot_send_is_refused(
    token: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNLM_TOKEN", token)
    done = in_this_process(finished, "serve", "--port", "0", code=2)
    assert done.stderr.startswith("rnnlm: RNNLM_TOKEN must be of ASCII characters")
    assert done.stderr.count("\n") == 1
    assert token not in done.stderr


def test_a_port_that_is_taken_and_a_store_without_a_model_are_said(running: Running, tmp_path: Path) -> None:
    done = in_this_process(running.store, "serve", "--port", str(running.port), code=2)
    assert f"--port {running.port}" in done.stderr
    assert "no trained model" in in_this_process(tmp_path, "serve", "--port", "0", code=2).stderr
    assert "model" in in_this_process(tmp_path, "serve", "--port", "0", "--model", str(tmp_path), code=2).stderr


def test_a_token_is_asked_of_all_but_who_asks_for_its_health(finished: Path) -> None:
    secret = "s" + os.urandom(8).hex()
    with started(finished, RNNLM_TOKEN=secret) as server:
        client = httpx.Client(base_url=server.address)
        fields = {"prompt": "the", "max_tokens": 3}
        for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": secret}, {"Authorization": "Basic é"}):
            headers = {name.encode(): value.encode() for name, value in wrong.items()}
            response = client.post("/v1/completions", json=fields, headers=headers)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert client.get("/", headers=headers).status_code == 401
            assert client.get("/metrics", headers=headers).status_code == 401
            assert client.get("/health", headers=headers).status_code == 200
        right = {"Authorization": f"Bearer {secret}"}
        assert client.post("/v1/completions", json=fields, headers=right).status_code == 200
        assert client.get("/", auth=("anybody", secret)).status_code == 200
        assert not [line for line in server.said if secret in line]
