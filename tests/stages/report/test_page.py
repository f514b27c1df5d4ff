"""The page: what it says of a run, and that nothing in it becomes markup or asks for anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from typing import Any

from stages.promotion.judge import Comparison, Verdict
from stages.report import words
from stages.report.gather import Report
from stages.report.page import html

Run = Callable[..., Report]


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


def page(report: Report) -> Page:
    return Page(html(report))


def test_the_page_tells_the_run(run: Run, promoted: dict[str, Any]) -> None:
    gathered = run(promoted)
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
    for word in ("hidden_size", "temperature 0.7", "trained by bptt on the CPU", "numpy", "tokens per second"):
        assert word in shown.text


def test_the_interval_is_drawn_on_the_side_of_the_better(run: Run, promoted: dict[str, Any]) -> None:
    def drawn(verdict: dict[str, Any]) -> list[float]:
        lines = {
            attributes.get("class"): attributes for tag, attributes in page(run(verdict)).elements if tag == "line"
        }
        places = (lines["range"]["x1"], lines["point"]["x1"], lines["range"]["x2"])
        return [float((place or "").rstrip("%")) for place in places]

    def with_figures(**figures: float) -> dict[str, Any]:
        return {**promoted, "tests": [{**promoted["tests"][0], **figures}]}

    low, point, high = drawn(promoted)
    assert 50 < low < point < high < 100
    low, point, high = drawn(with_figures(gain=-0.004, lower=-0.02, upper=0.012))
    assert 0 < low < point < 50 < high
    assert drawn(with_figures(gain=0.0, lower=0.0, upper=0.0)) == [50, 50, 50]


def test_the_interval_has_a_scale_and_says_of_which_champion_and_where_nothing_could_be_told(
    run: Run, promoted: dict[str, Any]
) -> None:
    champion = {"key": "5" * 64, "since": "2026-11-20T03:05:09+00:00", "page": "reports/0123456789abcdef.html"}
    shown = page(run({**promoted, "champion": champion}))
    assert "The champion was 5555555555555555, since 2026-11-20 03:05 UTC: its report." in shown.text
    assert ("a", {"href": "0123456789abcdef.html"}) in shown.elements
    assert "99 % interval +0.0117 to +0.0309" in shown.text
    for label in ("−0.02", "0.00", "+0.02"):
        assert f" {label} " in shown.text
    assert "Too little is unseen." in shown.text
    assert "The champion was" not in page(run(promoted)).text


def test_a_verdict_that_was_kept_before_there_were_several_texts_is_shown(run: Run, promoted: dict[str, Any]) -> None:
    today = promoted["tests"][0]
    names = {"candidate_bits": "bits", "champion_bits": "bits_champion", "difference": "gain"}
    names |= {"low": "lower", "high": "upper", "characters": "characters", "left_out": "left_out"}
    figures = {old: today[name] for old, name in names.items()}
    kept = {"promoted": True, "reason": "it is better", **figures, "blocks": 100}
    assert page(run(kept)).text == page(run({**promoted, "reason": "it is better", "tests": [today]})).text
    first = {**kept, "champion_bits": None, "difference": None, "low": None, "high": None}
    assert "Against the champion" not in page(run(first)).text


def test_without_a_verdict_the_top_compares_with_the_baselines(tiny: Report) -> None:
    assert tiny.summary.startswith("Perplexity ")
    assert escape(tiny.summary) in html(tiny)
    assert tiny.description.rstrip(".") in page(tiny).text
    assert "romoted" not in page(tiny).text
    assert "champion" not in page(tiny).text


def test_a_refusal_says_why_in_words(run: Run, promoted: dict[str, Any]) -> None:
    gathered = run({**promoted, "promoted": False, "reason": "it could be chance"})
    assert "✕ Not promoted It could be chance." in page(gathered).text


def test_the_first_champion_has_nothing_to_be_compared_with(run: Run) -> None:
    today = Comparison("today", True, "there is no champion yet", bits=2.2, characters=2538)
    first = Verdict(True, today.reason, (today,)).json()
    gathered = run(first)
    assert "✓ Promoted There is no champion yet" in page(gathered).text
    assert "Against the champion" not in page(gathered).text


def test_what_was_cached_and_why_the_rest_ran(run: Run) -> None:
    run()
    gathered = run(evaluate={"length": 9})
    reason = gathered.outcomes["evaluate"].reason
    assert "→ 9" in reason
    shown = page(gathered).text
    assert shown.count("✓ cached") == 3
    assert shown.count("unchanged since") == 3
    assert shown.count("↻ ran") == 1
    assert reason in shown


def test_nothing_of_the_corpus_becomes_markup(tiny: Report, promoted: dict[str, Any], nasty: str) -> None:
    evil = {"name": nasty, "file": "<img src=x>", "sha256": "0" * 64, "bytes": 5}
    shown = page(replace(tiny, source=evil, verdict={"promoted": False, "reason": nasty, "tests": []}))
    assert shown.count("script") == shown.count("img") == 0
    assert shown.text.count(nasty) >= 4  # the name, the reason, two samples


def test_the_page_asks_for_nothing_from_outside(tiny: Report) -> None:
    address = "https://example.org/book.txt"
    gathered = replace(tiny, source={"name": "book", "address": address, "sha256": "0" * 64, "bytes": 5})
    shown = page(gathered)
    assert address in shown.text
    for tag, attributes in shown.elements:
        assert tag not in ("script", "img", "iframe", "object", "a")
        for name in ("src", "href", "srcset", "action", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    style = html(gathered).partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_white_space_and_the_prefix_survive(tiny: Report) -> None:
    samples = [{"prefix": "The  CAT", "temperature": 0.0, "text": "the  cat\n\n  sat\ton"}]
    text = html(replace(tiny, samples=samples))
    assert '<pre dir="auto"><mark>the  cat</mark>\n\n  sat\ton</pre>' in text


def test_splits_too_short_to_measure_are_said_to_be(tiny: Report) -> None:
    baselines = {name: {**rows, "valid": None, "test": None} for name, rows in tiny.metrics["baselines"].items()}
    gathered = replace(tiny, metrics={**tiny.metrics, "valid": None, "test": None, "baselines": baselines})
    shown = page(gathered).text
    assert shown.count("too short to measure") == 2
    assert "train perplexity" in shown
    assert "on text it trained on" in shown


def test_a_run_that_measured_nothing_still_has_a_report(tiny: Report) -> None:
    nothing, baselines = dict.fromkeys(("train", "valid", "test")), tiny.metrics["baselines"]
    metrics = {**tiny.metrics, **nothing, "baselines": {name: {**rows, **nothing} for name, rows in baselines.items()}}
    history: dict[str, Any] = {"epoch": [1], "train_perplexity": [None], "valid_perplexity": [None]}
    shown = page(replace(tiny, metrics=metrics, history=history))
    assert shown.text.count("too short to measure") == 3
    assert shown.count("polyline") == shown.count("circle") == 0


def test_one_epoch_is_a_point(run: Run) -> None:
    shown = page(run(train={"epochs": 1}))
    assert shown.count("circle") == 6
    assert shown.count("polyline") == 0


def test_words_are_called_words(run: Run) -> None:
    gathered = run(tokenize={"level": "word"}, evaluate={"prefixes": ["the   cat"]})
    text = html(gathered)
    assert " words, 0.00% unknown" in text
    assert "<mark>the cat</mark> " in text


def test_a_prompt_of_subwords_is_marked_as_the_model_read_it(tiny: Report) -> None:
    model = {**tiny.model, "level": "bpe", "normalizer": "book"}
    samples = [{"prefix": "The cat", "temperature": 1.0, "text": " the cat sat"}]
    assert "<mark> the cat</mark> sat" in html(replace(tiny, model=model, samples=samples))


def test_a_word_model_is_told_by_word_and_by_character(run: Run) -> None:
    gathered = run(tokenize={"level": "word"}, evaluate={"prefixes": ["the cat"]})
    test = gathered.metrics["test"]
    shown = page(gathered).text
    assert f"test perplexity per word{test['perplexity']:.2f}" in shown
    assert f"bits per character{test['bits_per_character']:.3f}" in shown
    assert f"on unseen text ({test['bits_per_character']:.3f} bits per character, " in shown
    assert "Bits per character hold what spelling out the unknown words takes" in shown


def test_figures_by_windows_name_how_they_were_measured(run: Run, tiny: Report) -> None:
    gathered = run(evaluate={"window": 16})
    said = "With the state reset every 16 characters, as models of a fixed context are measured"
    assert said in page(gathered).text
    assert f"test {gathered.metrics['test']['windowed']['loss']:.4f} nats, perplexity" in page(gathered).text
    assert "With the state reset" not in page(tiny).text


def test_what_was_dropped_in_training_is_told_where_it_was(run: Run, tiny: Report) -> None:
    gathered = run(train={"input_dropout": 0.2, "hidden_dropout": 0.3, "output_dropout": 0.4, "variational": False})
    assert "with dropout of 0.2 (inputs), 0.4 (outputs)." in page(gathered).text, "there is nothing between one layer"
    assert "dropout of" not in page(tiny).text
    two = {"layers": 2, "hidden_dropout": 0.3}
    assert words.dropout(two) == "0.3 (between layers)"
