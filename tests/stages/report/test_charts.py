"""Charts and their drawing: all figures are there, in their places, on the page and in a picture that stands alone."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from stages.report import charts, svg
from stages.report.charts import BOTTOM, LEFT, RIGHT, TOP, Chart
from stages.report.gather import Report

SVG = "{http://www.w3.org/2000/svg}"


def curve(report: Report, **columns: Any) -> Chart:
    chart = charts.learning_curve({**report.history, **columns}, report.metrics)
    assert chart is not None
    return chart


def words_of(picture: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]


# --- what is drawn


def test_the_learning_curve_falls_to_the_right_and_stands_beside_its_baseline(tiny: Report) -> None:
    train = tiny.history["train_perplexity"]
    chart = curve(tiny)
    first, second, level = chart.lines
    assert [x for x, _ in first.points] == [LEFT, RIGHT]
    assert (first.points[0][1] < first.points[1][1]) == (train[0] > train[1]), "less is lower, and y grows downwards"
    assert first.last == train[-1]
    assert second.last == tiny.history["valid_perplexity"][-1]
    assert len({y for _, y in level.points}) == 1
    assert f"training split, running ends at {train[-1]:.2f}" in chart.summary


@pytest.mark.parametrize("perplexity", [5.0, 1.7976931348623157e308, 1.0])
def test_ten_thousand_epochs_are_thinned_and_stay_on_the_chart(tiny: Report, perplexity: float) -> None:
    column: list[float | None] = [perplexity] * 10_000
    column[6_543] = 1e9  # a peak of one epoch is what such a chart is looked at for
    nothing = [None] * 10_000
    line = curve(tiny, epoch=range(1, 10_001), train_perplexity=column, valid_perplexity=nothing).lines[0]
    assert 100 < len(line.points) <= 400
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in line.points)
    assert len({y for _, y in line.points}) == 2


def test_it_is_seen_beside_a_figure_of_unseen_text(tiny: Report) -> None:
    def level(*too_short: str) -> str:
        baselines = {
            name: {split: None if split in too_short else row for split, row in rows.items()}
            for name, rows in tiny.metrics["baselines"].items()
        }
        metrics = {**tiny.metrics, **dict.fromkeys(too_short), "baselines": baselines}
        chart = charts.learning_curve(tiny.history, metrics)
        assert chart is not None
        return chart.summary

    rows = tiny.metrics["baselines"]
    assert f"5-gram on the validation split {rows['5gram']['valid']['perplexity']:.2f}" in level()
    assert f"5-gram on the test split {rows['5gram']['test']['perplexity']:.2f}" in level("valid")
    assert f"unigram baseline {rows['unigram']['train']['perplexity']:.2f}" in level("valid", "test")
    assert "5-gram" not in level("valid", "test")


def test_gradients_are_seen_beside_their_bound_where_it_is_near(tiny: Report) -> None:
    def names(clip_norm: float) -> list[str]:
        chart = charts.gradient_norms(tiny.history, clip_norm)
        assert chart is not None
        return [line.name for line in chart.lines]

    assert names(1.0) == ["mean of the epoch", "longest of the epoch", "clipped above this"]
    assert names(0) == names(1e6) == ["mean of the epoch", "longest of the epoch"]
    assert charts.gradient_norms({"epoch": [1]}, 1.0) is None, "models of old have no such columns"


def test_trials_that_went_astray_do_not_flatten_the_rest() -> None:
    chart = charts.trials(
        [
            ("the best: train.hidden_size=8", "best", [4.0, 3.0, 2.5]),
            ("stopped", "stopped", [4.2, 3.9]),
            ("", "stopped", [300.0, 290.0]),
            ("failed", "failed", [5.0, math.inf]),
            ("finished", "finished", [math.inf, math.nan]),
        ]
    )
    best, stopped, astray, failed = chart.lines
    assert [x for x, _ in best.points] == [LEFT, (LEFT + RIGHT) / 2, RIGHT]
    heights = [y for _, y in (*best.points, *stopped.points, *failed.points)]
    assert all(TOP < y < BOTTOM for y in heights)
    assert max(heights) - min(heights) > 0.8 * (BOTTOM - TOP)
    assert all(y < TOP for _, y in astray.points), "far above, where the drawing is cut off"
    assert len(failed.points) == 1
    assert [label for _, label in chart.y_ticks] == ["2.5", "3.0", "3.5", "4.0", "4.5", "5.0"]
    assert chart.summary == "Bits per character over 3 epochs: the best: train.hidden_size=8 ends at 2.50"


@pytest.mark.parametrize("values", [[2.0], [2.0, 2.0], [1e-9, 2e-9], [0.0], [1e9, 3e9]])
def test_any_range_has_ticks_within_it(values: list[float]) -> None:
    chart = charts.trials([("the best", "best", values)])
    assert 2 <= len(chart.y_ticks) <= 8
    assert all(TOP <= y <= BOTTOM for y, _ in chart.y_ticks)
    assert len({label for _, label in chart.y_ticks}) == len(chart.y_ticks)


# --- how it is drawn


def test_on_the_page_it_takes_the_colours_of_the_page(tiny: Report) -> None:
    drawn = svg.inline(curve(tiny))
    assert drawn.count("<polyline") == 3
    assert "#" not in drawn
    assert set(re.findall(r"var\(--(\w+)\)", svg.STYLE)) < svg.LIGHT.keys() == svg.DARK.keys()


def test_a_picture_has_its_own_colours_and_legend_and_takes_the_ground_that_it_is_given(tiny: Report) -> None:
    picture = svg.picture(curve(tiny))
    root = ElementTree.fromstring(picture)
    assert root.tag == f"{SVG}svg"
    assert root.find(f"{SVG}rect") is None, "which would be a white sheet on a dark page"
    assert "var(" not in picture, "not every viewer knows variables"
    assert "href" not in picture
    train = tiny.history["train_perplexity"][-1]
    assert f"training split, running{train:.2f}" in words_of(picture)
    assert {"epoch", "perplexity (log scale)"} < set(words_of(picture))


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("ground", ["#ffffff", "#1b1e25"])
def test_a_pictures_words_and_lines_stand_out_on_white_and_on_near_black(ground: str) -> None:
    assert svg.ANYWHERE.keys() == svg.LIGHT.keys() - {"card"}
    for name in svg.ANYWHERE.keys() - {"line"}:
        light, dark = sorted((luminance(svg.ANYWHERE[name]), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3, name


def test_one_epoch_is_a_point(tiny: Report) -> None:
    picture = svg.picture(curve(tiny, epoch=[1], train_perplexity=[5.0], valid_perplexity=[6.0]))
    assert picture.count("<circle") == 3
    assert picture.count("<polyline") == 0


def test_a_sweeps_picture_names_each_kind_once_and_marks_where_trials_end() -> None:
    name = "the best: " + " ".join(f"train.field_{number}=<&>" for number in range(6))
    picture = svg.picture(
        charts.trials(
            [
                (name, "best", [4.0, 3.0]),
                ("stopped", "stopped", [4.0]),
                ("", "stopped", [4.5]),
                ("failed", "failed", [4.1, 4.2]),
            ]
        )
    )
    legend = [text for text in words_of(picture) if "train.field" in text]
    assert len(legend) > 1, "what is too long for a row goes on in the next"
    assert " ".join(legend) == f"{name}3.00"
    assert words_of(picture).count("stopped") == words_of(picture).count("failed") == 1
    assert picture.count("<circle") == 3
    assert picture.count("<path") == 1, "who cannot see colours sees a cross"
