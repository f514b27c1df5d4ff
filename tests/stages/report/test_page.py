"""The report of a run: what it says, and how a real browser shows it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data.errors import StoreError
from data.store.folder import Store
from stages.pipeline import graph, settings
from stages.pipeline import run as pipeline
from stages.promotion.judge import Verdict
from stages.report import page as report

NASTY = "<script>alert(1)</script>"
TEXT = "".join(f"The {animal} saw {number} birds {NASTY}\n" for number in range(20) for animal in ("cat", "dog"))
TINY: dict[str, Any] = {
    "tokenize": {"train_share": 0.8, "valid_share": 0.1, "test_share": 0.1},
    "train": {"hidden_size": 8, "batch_size": 4, "num_steps": 8, "epochs": 2, "device": "cpu"},
    "evaluate": {"prefixes": ["the", NASTY], "length": 8},
}
PROMOTED = Verdict(
    promoted=True,
    reason="better than the champion by more than chance explains",
    candidate_bits=2.2106,
    champion_bits=2.2319,
    difference=0.0213,
    low=0.0117,
    high=0.0309,
    characters=2538,
    left_out=12,
).json()
FIRST = Verdict(promoted=True, reason="there is no champion yet", candidate_bits=2.2, characters=2538).json()

Run = Callable[..., report.Report]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the real pipeline, fields of some stages changed, on one store; gather its report."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    store = Store(folder / "store")

    def gathered(verdict: dict[str, Any] | None = None, **changes: dict[str, Any]) -> report.Report:
        values = {stage: {**TINY.get(stage, {}), **changes.get(stage, {})} for stage in graph.shown()}
        values["download"] = {"corpus": str(folder / "text.txt")}
        return report.gather(pipeline.run(settings.parse(values), store, lambda stage: lambda *_: None), verdict)

    gathered()
    return gathered


@pytest.fixture
def tiny(run: Run) -> report.Report:
    return run()


class Page(HTMLParser):
    """What a page holds; fails on an element that is not closed where it should be."""

    EMPTY = frozenset({"meta", "link", "br", "line", "circle", "polyline"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY or tag in ("circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def page(gathered: report.Report) -> Page:
    return Page(report.html(gathered))


def test_the_page_tells_the_run(run: Run) -> None:
    gathered = run(PROMOTED)
    shown = page(gathered)
    metrics = gathered.metrics
    assert "✓ Promoted" in shown.text
    assert "Better than the champion by more than chance explains." in shown.text
    for figure in ("2.2106", "2.2319", "+0.0213", "+0.0117", "+0.0309", "2,538 characters, 12 left out"):
        assert figure in shown.text
    for split in ("train", "valid", "test"):
        assert f"{metrics[split]['perplexity']:.2f}" in shown.text
        for baseline in ("5gram", "unigram"):
            assert f"{metrics['baselines'][baseline][split]['bits_per_character']:.3f}" in shown.text
    assert "5-gram on the validation split" in shown.text
    assert f"{metrics['memorization']['share']:.2%} stand in the training text word for word." in shown.text
    assert shown.count("polyline") == 6  # the two charts: three lines each
    assert gathered.source["sha256"] in shown.text
    for outcome in gathered.outcomes.values():
        assert outcome.artifact.manifest.key in shown.text
    for name, key in gathered.outcomes["evaluate"].artifact.manifest.parents.items():
        assert f"{name} {key[:8]}" in shown.text  # the baselines among them
    for word in ("hidden_size", "temperature 0.7", "mxnet", "on the CPU", "tokens per second"):
        assert word in shown.text


def test_the_interval_is_drawn_on_the_side_of_the_better(run: Run) -> None:
    def drawn(verdict: dict[str, Any]) -> list[float]:
        lines = {
            attributes.get("class"): attributes for tag, attributes in page(run(verdict)).elements if tag == "line"
        }
        places = (lines["range"]["x1"], lines["point"]["x1"], lines["range"]["x2"])
        return [float((place or "").rstrip("%")) for place in places]

    low, point, high = drawn(PROMOTED)
    assert 50 < low < point < high < 100
    low, point, high = drawn({**PROMOTED, "difference": -0.004, "low": -0.02, "high": 0.012})
    assert 0 < low < point < 50 < high
    assert drawn({**PROMOTED, "difference": 0.0, "low": 0.0, "high": 0.0}) == [50, 50, 50]


def test_without_a_verdict_the_top_compares_with_the_baselines(tiny: report.Report) -> None:
    assert tiny.summary.startswith("Perplexity ")
    assert html.escape(tiny.summary) in report.html(tiny)
    assert f"**{tiny.summary}**" in report.markdown(tiny)
    assert tiny.description.rstrip(".") in page(tiny).text
    assert tiny.description in report.markdown(tiny)
    assert "romoted" not in page(tiny).text
    assert "champion" not in page(tiny).text


def test_a_refusal_says_why_in_words(run: Run) -> None:
    gathered = run({**PROMOTED, "promoted": False, "reason": "it could be chance"})
    assert "✕ Not promoted It could be chance." in page(gathered).text
    assert "## ✕ Not promoted\n\nIt could be chance." in report.markdown(gathered)


def test_the_first_champion_has_nothing_to_be_compared_with(run: Run) -> None:
    gathered = run(FIRST)
    assert "✓ Promoted There is no champion yet" in page(gathered).text
    assert "Against the champion" not in page(gathered).text
    assert "There is no champion yet." in report.markdown(gathered)


def test_what_was_cached_and_why_the_rest_ran(run: Run) -> None:
    run()
    gathered = run(evaluate={"length": 9})
    reason = "evaluate.length: 8 → 9"
    shown = page(gathered).text
    assert shown.count("✓ cached") == 3
    assert shown.count("unchanged since") == 3
    assert shown.count("↻ ran") == 1
    assert reason in shown
    assert re.search(rf"\| evaluate \| ran \| [\d.]+ s \| {reason} \|", report.markdown(gathered))


def test_nothing_of_the_corpus_becomes_markup(tiny: report.Report) -> None:
    evil = {"name": NASTY, "file": "<img src=x>", "sha256": "0" * 64, "bytes": 5}
    shown = page(replace(tiny, source=evil, verdict={"promoted": False, "reason": NASTY}))
    assert shown.count("script") == shown.count("img") == 0
    assert shown.text.count(NASTY) >= 4  # the name, the reason, two samples


def test_the_page_asks_for_nothing_from_outside(tiny: report.Report) -> None:
    address = "https://example.org/book.txt"
    gathered = replace(tiny, source={"name": "book", "address": address, "sha256": "0" * 64, "bytes": 5})
    shown = page(gathered)
    assert address in shown.text
    for tag, attributes in shown.elements:
        assert tag not in ("script", "img", "iframe", "object", "a")
        for name in ("src", "href", "srcset", "action", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    style = report.html(gathered).partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_white_space_and_the_prefix_survive(tiny: report.Report) -> None:
    samples = [{"prefix": "The  CAT", "temperature": 0.0, "text": "the  cat\n\n  sat\ton"}]
    text = report.html(replace(tiny, samples=samples))
    assert '<pre dir="auto"><mark>the  cat</mark>\n\n  sat\ton</pre>' in text


def test_splits_too_short_to_measure_are_said_to_be(tiny: report.Report) -> None:
    baselines = {name: {**rows, "valid": None, "test": None} for name, rows in tiny.metrics["baselines"].items()}
    gathered = replace(tiny, metrics={**tiny.metrics, "valid": None, "test": None, "baselines": baselines})
    shown = page(gathered).text
    assert shown.count("too short to measure") == 2
    assert "train perplexity" in shown
    assert "on text it trained on" in shown


def test_a_run_that_measured_nothing_still_has_a_report(tiny: report.Report) -> None:
    nothing, baselines = dict.fromkeys(("train", "valid", "test")), tiny.metrics["baselines"]
    metrics = {**tiny.metrics, **nothing, "baselines": {name: {**rows, **nothing} for name, rows in baselines.items()}}
    history = {"epoch": [1], "train_perplexity": [None], "valid_perplexity": [None]}
    shown = page(replace(tiny, metrics=metrics, history=history))
    assert shown.text.count("too short to measure") == 3
    assert shown.count("polyline") == shown.count("circle") == 0


def test_one_epoch_is_a_point(run: Run) -> None:
    shown = page(run(train={"epochs": 1}))
    assert shown.count("circle") == 6
    assert shown.count("polyline") == 0


@pytest.mark.parametrize("perplexity", [5.0, 1.7976931348623157e308, 1.0])
def test_ten_thousand_epochs_are_thinned_and_stay_on_the_chart(tiny: report.Report, perplexity: float) -> None:
    column: list[float | None] = [perplexity] * 10_000
    column[6_543] = 1e9  # a peak of one epoch is what such a chart is looked at for
    history = {"epoch": list(range(1, 10_001)), "train_perplexity": column, "valid_perplexity": [None] * 10_000}
    shown = page(replace(tiny, history=history))
    (_, line), *_ = [found for found in shown.elements if found[0] == "polyline" and found[1]["class"] == "first"]
    points = [tuple(map(float, point.split(","))) for point in (line["points"] or "").split()]
    assert 100 < len(points) <= 400
    assert all(62 <= x <= 508 and 12 <= y <= 252 for x, y in points)
    assert len({y for _, y in points}) == 2


def test_words_are_called_words(run: Run) -> None:
    gathered = run(tokenize={"level": "word"}, evaluate={"prefixes": ["the   cat"]})
    text = report.html(gathered)
    assert " words, 0.00% unknown" in text
    assert "<mark>the cat</mark> " in text


def test_a_word_model_is_told_by_word_and_by_character(run: Run) -> None:
    gathered = run(tokenize={"level": "word"}, evaluate={"prefixes": ["the cat"]})
    test = gathered.metrics["test"]
    shown = page(gathered).text
    assert f"test perplexity per word{test['perplexity']:.2f}" in shown
    assert f"bits per character{test['bits_per_character']:.3f}" in shown
    assert f"on unseen text ({test['bits_per_character']:.3f} bits per character)" in shown


def test_figures_by_windows_name_how_they_were_measured(run: Run, tiny: report.Report) -> None:
    gathered = run(evaluate={"window": 16})
    said = "With the state reset every 16 characters, as models of a fixed context are measured"
    for text in (page(gathered).text, report.markdown(gathered)):
        assert said in text
        assert f"test {gathered.metrics['test']['windowed']['loss']:.4f} nats, perplexity" in text
    assert "With the state reset" not in page(tiny).text


def test_what_was_dropped_in_training_is_told_where_it_was(run: Run, tiny: report.Report) -> None:
    gathered = run(train={"input_dropout": 0.2, "hidden_dropout": 0.3, "output_dropout": 0.4, "variational": False})
    assert "with dropout of 0.2 (inputs), 0.4 (outputs)." in page(gathered).text, "there is nothing between one layer"
    assert "dropout of" not in page(tiny).text


def test_the_curve_is_seen_beside_a_figure_of_unseen_text(tiny: report.Report) -> None:
    def level(*too_short: str) -> str:
        baselines = {
            name: {split: None if split in too_short else row for split, row in rows.items()}
            for name, rows in tiny.metrics["baselines"].items()
        }
        metrics = {**tiny.metrics, **dict.fromkeys(too_short), "baselines": baselines}
        shown = page(replace(tiny, metrics=metrics))
        return next(data["aria-label"] or "" for tag, data in shown.elements if tag == "svg" and "aria-label" in data)

    rows = tiny.metrics["baselines"]
    assert f"5-gram on the validation split {rows['5gram']['valid']['perplexity']:.2f}" in level()
    assert f"5-gram on the test split {rows['5gram']['test']['perplexity']:.2f}" in level("valid")
    assert f"unigram baseline {rows['unigram']['train']['perplexity']:.2f}" in level("valid", "test")
    assert "5-gram" not in level("valid", "test")


def test_a_5_gram_counted_on_a_part_says_so(tiny: report.Report) -> None:
    baselines = {**tiny.metrics["baselines"], "5gram": {**tiny.metrics["baselines"]["5gram"], "fitted_on": 1000}}
    said = "The 5-gram was counted on the last 1,000 characters of it."
    assert said in page(replace(tiny, metrics={**tiny.metrics, "baselines": baselines})).text
    assert "was counted on" not in page(tiny).text


def test_the_markdown_is_the_same_with_its_picture(run: Run) -> None:
    text = report.markdown(run(PROMOTED))
    assert text.startswith("# Language model report\n\n## ✓ Promoted\n")
    assert "![perplexity per epoch](data:image/png;base64,iVBOR" in text
    assert "curve.png" not in text
    for word in (
        "2.2106 | 2.2319 | +0.0213 | +0.0117 to +0.0309",
        "train.hidden_size | 8",
        "| unigram | uniform |",
        "mxnet 2",
    ):
        assert word in text
    for row in text.split("\n"):
        if row.startswith("| evaluate.prefixes"):
            assert NASTY not in row  # markdown would pass it through
            assert "\\<script\\>" in row


def test_a_report_is_written_whole_or_not_at_all(tiny: report.Report, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    report.write(tiny, path)
    assert path.read_text(encoding="utf-8") == report.html(tiny)
    assert [found.name for found in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(StoreError, match="cannot be written"):
        report.write(tiny, path / "below-a-file.html")
    with pytest.raises(StoreError, match="cannot be written"):
        report.write(tiny, path.parent)
    assert [found.name for found in path.parent.iterdir()] == ["report.html"]


# --- in a real browser

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
def crammed(run: Run) -> report.Report:
    """A report whose every part is as wide as it gets."""
    gathered = run({**PROMOTED, "reason": f"{NASTY} {'because' * 60}"})
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


@pytest.mark.parametrize("width", [320, 360, 700, 1200])
def test_the_page_never_scrolls_sideways(
    crammed: report.Report, chromium: Chromium, tmp_path: Path, width: int
) -> None:
    """A window of Chromium is never as narrow as a phone, a frame in it is."""
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f'<iframe style="width: {width}px; height: 600px; border: 0" srcdoc="{html.escape(report.html(crammed))}">'
        "</iframe><pre></pre><script>onload = () => {"
        "const inside = document.querySelector('iframe').contentDocument;"
        "inside.querySelectorAll('details').forEach(part => part.open = true);"
        "document.querySelector('pre').textContent = JSON.stringify({"
        "width: inside.documentElement.clientWidth, needed: inside.documentElement.scrollWidth,"
        "height: inside.documentElement.scrollHeight,"
        "drawn: inside.querySelector('svg.chart').getBoundingClientRect().width})}</script>",
        encoding="utf-8",
    )
    found = re.findall(r"<pre>(\{.*?\})</pre>", chromium("--dump-dom", wrapper.as_uri()))
    measured = json.loads(found[-1])
    assert measured["width"] == width
    assert measured["needed"] == width
    assert measured["height"] > 2000
    assert measured["drawn"] > 200


def test_dark_and_light_follow_the_reader(tiny: report.Report, chromium: Chromium, tmp_path: Path) -> None:
    from matplotlib import image

    report.write(tiny, tmp_path / "report.html")
    brightness = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        picture = tmp_path / f"{scheme}.png"
        chromium(
            f"--blink-settings=preferredColorScheme={number}",
            "--window-size=1200,1000",
            f"--screenshot={picture}",
            (tmp_path / "report.html").as_uri(),
        )
        pixels = image.imread(picture)[:, :, :3].mean(axis=2)
        brightness[scheme] = float(pixels[5, 5])
        # Writing stands out from its ground: the heading is there, light on dark or dark on light.
        assert pixels[:200].max() - pixels[:200].min() > 0.7
    assert brightness["dark"] < 0.2
    assert brightness["light"] > 0.8


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


def test_a_browser_asks_for_the_page_and_nothing_else(crammed: report.Report, chromium: Chromium, serve: Serve) -> None:
    address, asked = serve(report.html(crammed))
    assert "✓ Promoted" in chromium("--dump-dom", f"{address}/report.html")
    assert asked == ["/report.html"]


def test_the_policy_would_stop_what_escaping_let_through(tiny: report.Report, chromium: Chromium, serve: Serve) -> None:
    smuggled = (
        '<img src="/picture"><script src="/script"></script><script>document.title = "taken over"</script>'
        '<link rel="stylesheet" href="/style"><iframe src="/frame"></iframe></main>'
    )
    address, asked = serve(report.html(tiny).replace("</main>", smuggled))
    assert "<title>taken over</title>" not in chromium("--dump-dom", f"{address}/report.html")
    assert asked == ["/report.html"]
