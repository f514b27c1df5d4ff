"""The page in a real browser, driven as a person would: typed into, read while it is written, stopped."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from tests.stages.report.test_browser import FLAGS
from tests.stages.serving.conftest import Running, connected, head


class Tab:
    """One page, by the protocol of the browser's own tools."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._numbers = connection, itertools.count()
        self.asked: list[str] = []
        """Addresses that the page has asked for."""
        self.complaints: list[str] = []

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = json.loads(self._connection.recv(timeout=20))
            if told.get("method") == "Network.requestWillBeSent":
                self.asked.append(told["params"]["request"]["url"])
            elif told.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(told["params"]))
            if told.get("id") == number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result

    def find(self, expression: str) -> Any:
        return self.do("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str) -> None:
        until = time.monotonic() + 20
        while not self.find(expression):
            assert time.monotonic() < until, (expression, self.find("document.body.innerText"), self.complaints)
            time.sleep(0.02)

    def type(self, field: str, text: str) -> None:
        self.find(f"document.getElementById('{field}').select?.()")
        self.find(f"document.getElementById('{field}').focus()")
        self.do("Input.insertText", text=text)

    def press(self, button: str) -> None:
        self.find(f"document.getElementById('{button}').click()")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Headless Chromium; where it is spoken to."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    profile = tmp_path_factory.mktemp("profile")
    command = [program, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        written = profile / "DevToolsActivePort"
        until = time.monotonic() + 30
        while not (written.exists() and written.read_text(encoding="utf-8").count("\n")):
            assert time.monotonic() < until
            time.sleep(0.05)
        yield f"http://127.0.0.1:{written.read_text(encoding='utf-8').splitlines()[0]}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def tab(browser: str, running: Running) -> Iterator[Tab]:
    opened = httpx.put(f"{browser}/json/new").json()
    with connect(opened["webSocketDebuggerUrl"]) as connection:
        tab = Tab(connection)
        for domain in ("Page", "Network", "Runtime", "Log"):
            tab.do(f"{domain}.enable")
        tab.do("Page.navigate", url=running.address)
        tab.wait("document.readyState == 'complete' && document.getElementById('model')?.value")
        yield tab
        assert tab.complaints == []
    httpx.get(f"{browser}/json/close/{opened['id']}")


TEXT = "document.getElementById('text').textContent"
SAID = "document.getElementById('said').textContent"


def test_a_text_is_written_into_the_page(tab: Tab, running: Running) -> None:
    for field, value in {"prompt": "Then the", "length": "60", "temperature": "0.5", "seed": "7"}.items():
        tab.type(field, value)
    tab.press("go")
    tab.wait(f"{SAID}.startsWith('written')")
    fields = {"prompt": "Then the", "max_tokens": 60, "temperature": 0.5, "seed": 7, "echo": True}
    assert tab.find(TEXT) == running.complete(**fields)["choices"][0]["text"]
    assert tab.find(SAID) == "written with the seed 7"
    assert {address.removeprefix(running.address) for address in tab.asked} == {"/", "/v1/models", "/v1/completions"}


def test_a_text_is_seen_while_it_is_written_and_can_be_stopped(tab: Tab, running: Running) -> None:
    body = json.dumps({"prompt": "the", "max_tokens": 8192, "n": 63}).encode()
    with connected(running) as other:  # who takes its time, so that a person is quick enough to stop it
        other.sendall(head(len(body)) + body)
        tab.type("length", "8192")
        tab.press("go")
        tab.wait(f"{TEXT}.length > 0")
        tab.press("stop")
        tab.wait(f"{SAID} == 'stopped'")
    assert 0 < tab.find(TEXT + ".length") < 8192
    running.waits_for(lambda: running.metric("rnnlm_texts") == 0, 2)
    assert tab.find("document.getElementById('stop').disabled")


def test_what_is_refused_is_said(tab: Tab) -> None:
    tab.find("document.querySelector('form').noValidate = true")
    tab.type("length", "99999")
    tab.press("go")
    tab.wait(f"{SAID}.startsWith('max_tokens')")
    tab.complaints.clear()  # the browser's own word on the status


def test_every_field_has_a_label_and_both_schemes_can_be_read(tab: Tab) -> None:
    unlabelled = "[...document.querySelectorAll('input, select, textarea')].filter(one => !one.labels.length).length"
    assert tab.find(unlabelled) == 0
    colour = "getComputedStyle(document.body)"
    for scheme in ("light", "dark"):
        tab.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        ground, ink = (
            sum(map(int, re.findall(r"\d+", tab.find(f"{colour}.{name}"))[:3])) for name in ("backgroundColor", "color")
        )
        assert abs(ground - ink) > 450
        assert (ground > ink) == (scheme == "light")
    tab.do("Emulation.setDeviceMetricsOverride", width=320, height=600, deviceScaleFactor=1, mobile=True)
    assert tab.find("document.documentElement.scrollWidth") == 320


def test_markup_in_a_text_is_text_and_the_policy_stops_what_is_not_ours(tab: Tab, running: Running) -> None:
    headers = httpx.get(running.address).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    tab.type("prompt", "<img src=x onerror=alert(1)>")
    tab.type("length", "3")
    tab.press("go")
    tab.wait(f"{SAID}.startsWith('written')")
    assert tab.find("document.querySelectorAll('output img').length") == 0
    assert tab.find(TEXT).startswith("<img src=x")
    tab.find(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))"
    )
    assert tab.find("document.title") == "A language model"
    assert any("Content Security Policy" in one for one in tab.complaints)
    tab.complaints.clear()


def test_the_page_stands_beside_its_code(running: Running) -> None:
    page = (Path(__file__).parents[3] / "stages" / "serving" / "page.html").read_text(encoding="utf-8")
    assert httpx.get(running.address).text == page
    assert not re.findall(r"(?:src|href)=\"(?!data:,)", page)
