"""Models that know no more than how many tokens there are, or how often each comes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stages.lm import metrics, unigram
from stages.lm.unigram import Unigram


def test_uniform_is_the_vocabulary_size() -> None:
    assert metrics.perplexity(unigram.uniform_loss(28)) == pytest.approx(28)


def test_unigram_counts_with_one_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unigram, "_CHUNK", 3)
    model = Unigram.fit(np.array([1, 1, 2, 1, 1, 1, 2], np.uint8), 4)
    np.testing.assert_allclose(np.exp(model.log_probabilities), [1 / 11, 6 / 11, 3 / 11, 1 / 11])
    expected = -(math.log(6 / 11) + math.log(1 / 11)) / 2
    assert model.loss(np.array([1, 3], np.uint8)) == pytest.approx(expected)
    assert model.loss(np.array([1, 3] * 50, np.uint16)) == pytest.approx(expected)
