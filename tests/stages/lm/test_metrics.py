"""What a loss amounts to."""

from __future__ import annotations

import json
import math

import pytest

from stages.lm import metrics


def test_summary_of_characters() -> None:
    summary = metrics.summarize(math.log(4), tokens=99, characters=100, spelling=0)
    assert summary == {
        "loss": math.log(4),
        "perplexity": pytest.approx(4),
        "bits_per_character": pytest.approx(2),
        "tokens": 99,
    }


def test_words_cost_fewer_bits_per_character() -> None:
    summary = metrics.summarize(math.log(1024), tokens=99, characters=500, spelling=0)
    assert summary["bits_per_character"] == pytest.approx(10 / 5)


def test_what_is_unknown_is_spelled_out_in_bits_per_character_alone() -> None:
    known = metrics.summarize(math.log(4), tokens=99, characters=500, spelling=0)
    spelled = metrics.summarize(math.log(4), tokens=99, characters=500, spelling=99.0)
    assert spelled.pop("bits_per_character") == pytest.approx((2 + 1) / 5)
    assert known.pop("bits_per_character") == pytest.approx(2 / 5)
    assert spelled == known


@pytest.mark.parametrize("loss", [1e6, math.inf, math.nan, 709.9, 1.7e308])
def test_summary_stays_a_number_in_json(loss: float) -> None:
    text = json.dumps(metrics.summarize(loss, tokens=10, characters=11, spelling=0), allow_nan=False)
    assert json.loads(text)["perplexity"] > 1e300
