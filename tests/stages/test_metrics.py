"""What a loss amounts to, and the baselines beside it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from stages.lm import metrics, ngram


def test_summary_of_characters():
    summary = metrics.summarize(math.log(4), tokens=99, characters=100)
    assert summary == {
        "loss": math.log(4),
        "perplexity": pytest.approx(4),
        "bits_per_character": pytest.approx(2),
        "tokens": 99,
    }


def test_words_cost_fewer_bits_per_character():
    summary = metrics.summarize(math.log(1024), tokens=99, characters=500)
    assert summary["bits_per_character"] == pytest.approx(10 / 5)


@pytest.mark.parametrize("loss", [1e6, math.inf, math.nan, 709.9, 1.7e308])
def test_summary_stays_a_number_in_json(loss):
    text = json.dumps(metrics.summarize(loss, tokens=10, characters=11), allow_nan=False)
    assert json.loads(text)["perplexity"] > 1e300


def test_uniform_is_the_vocabulary_size():
    assert metrics.perplexity(ngram.uniform_loss(28)) == pytest.approx(28)


def test_unigram_counts_with_one_added(monkeypatch):
    monkeypatch.setattr(ngram, "_CHUNK", 3)
    unigram = ngram.Unigram.fit(np.array([1, 1, 2, 1, 1, 1, 2], np.uint8), 4)
    np.testing.assert_allclose(np.exp(unigram.log_probabilities), [1 / 11, 6 / 11, 3 / 11, 1 / 11])
    expected = -(math.log(6 / 11) + math.log(1 / 11)) / 2
    assert unigram.loss(np.array([1, 3], np.uint8)) == pytest.approx(expected)
    assert unigram.loss(np.array([1, 3] * 50, np.uint16)) == pytest.approx(expected)
