"""The page in a real browser: it fits any screen, follows the reader's light or dark, and asks for nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stages.report.gather import Report
from stages.report.page import html

Run = Callable[..., Report]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
Chromium = Callable[..., str]


@pytest.fixture
def chromium(tmp_path: Path) -> Chromium:
    """Run headless Chromium with a profile of its own; what it printed."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")

    def call(*arguments: str) -> str:
        command = [program, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture
def crammed(run: Run, promoted: dict[str, Any], nasty: str) -> Report:
    """A report whose every part is as wide as it gets."""
    gathered = run({**promoted, "reason": f"{nasty} {'because' * 60}"})
    long = "W" * 300
    outcomes = {
        name: replace(outcome, reason=f"stages/{long}.py changed: {long}")
        for name, outcome in gathered.outcomes.items()
    }
    samples = [
        {"prefix": long * 20, "temperature": 0.0, "text": long * 20 + "x" * 300},
        {"prefix": "שלום", "temperature": 0.7, "text": "שלום עולם " * 40},
    ]
    source = {"name": long, "address": f"https://example.org/{long}", "sha256": "0" * 64, "bytes": 5}
    return replace(gathered, outcomes=outcomes, samples=samples, source=source)


@pytest.mark.parametrize("width", [320, 390, 700, 1200])
def test_the_page_never_scrolls_sideways(crammed: Report, chromium: Chromium, tmp_path: Path, width: int) -> None:
    """A window of Chromium is never as narrow as a phone, a frame in it is."""
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f'<iframe style="width: {width}px; height: 600px; border: 0" srcdoc="{escape(html(crammed))}">'
        "</iframe><pre></pre><script>onload = () => {"
        "const inside = document.querySelector('iframe').contentDocument;"
        "inside.querySelectorAll('details').forEach(part => part.open = true);"
        "document.querySelector('pre').textContent = JSON.stringify({"
        "width: inside.documentElement.clientWidth, needed: inside.documentElement.scrollWidth,"
        "height: inside.documentElement.scrollHeight,"
        "hidden: inside.querySelector('[aria-label=Metrics]').scrollWidth"
        " - inside.querySelector('[aria-label=Metrics]').clientWidth,"
        "drawn: inside.querySelector('svg.chart').getBoundingClientRect().width})}</script>",
        encoding="utf-8",
    )
    found = re.findall(r"<pre>(\{.*?\})</pre>", chromium("--dump-dom", wrapper.as_uri()))
    measured = json.loads(found[-1])
    assert measured["width"] == width
    assert measured["needed"] == width
    assert width < 390 or not measured["hidden"], "the last column of the figures is cut"
    assert measured["height"] > 2000
    assert measured["drawn"] > 200


def test_dark_and_light_follow_the_reader(tiny: Report, chromium: Chromium, tmp_path: Path) -> None:
    """The colours that the browser computes, as one of its own pages that looks into a frame."""
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f'<iframe srcdoc="{escape(html(tiny))}"></iframe><pre></pre><script>onload = () => {{'
        "const inside = document.querySelector('iframe').contentDocument;"
        "const colour = (name, of) => getComputedStyle(inside.querySelector(name))[of];"
        "document.querySelector('pre').textContent = JSON.stringify({paper: colour('body', 'backgroundColor'),"
        "card: colour('figure.card', 'backgroundColor'), words: colour('h1', 'color'),"
        "line: colour('polyline.first', 'stroke'), axis: colour('svg.chart .axis', 'fill')})}</script>",
        encoding="utf-8",
    )
    for scheme, number in (("dark", 0), ("light", 1)):
        printed = chromium(f"--blink-settings=preferredColorScheme={number}", "--dump-dom", wrapper.as_uri())
        colours = {
            name: sum(map(int, re.findall(r"\d+", colour)[:3])) / (3 * 255)
            for name, colour in json.loads(re.findall(r"<pre>(\{.*?\})</pre>", printed)[-1]).items()
        }
        grounds, signs = ("paper", "card"), ("words", "line", "axis")
        assert all(colours[name] < 0.2 if scheme == "dark" else colours[name] > 0.8 for name in grounds), colours
        # Writing and lines stand out from their ground, light on dark or dark on light.
        assert all(abs(colours[name] - colours["card"]) > 0.4 for name in signs), colours


class _Recorder(BaseHTTPRequestHandler):
    def __init__(self, text: bytes, asked: list[str], *arguments: Any) -> None:
        self.text, self.asked = text, asked
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *_: object) -> None:
        pass


Serve = Callable[[str], tuple[str, list[str]]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a text at every path; its address, and the paths that are asked for."""
    servers: list[ThreadingHTTPServer] = []

    def start(text: str) -> tuple[str, list[str]]:
        asked: list[str] = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Recorder, text.encode(), asked))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_browser_asks_for_the_page_and_nothing_else(crammed: Report, chromium: Chromium, serve: Serve) -> None:
    address, asked = serve(html(crammed))
    assert "✓ Promoted" in chromium("--dump-dom", f"{address}/report.html")
    assert asked == ["/report.html"]


def test_the_policy_would_stop_what_escaping_let_through(tiny: Report, chromium: Chromium, serve: Serve) -> None:
    smuggled = (
        '<img src="/picture"><script src="/script"></script><script>document.title = "taken over"</script>'
        '<link rel="stylesheet" href="/style"><iframe src="/frame"></iframe></main>'
    )
    address, asked = serve(html(tiny).replace("</main>", smuggled))
    assert "<title>taken over</title>" not in chromium("--dump-dom", f"{address}/report.html")
    assert asked == ["/report.html"]
