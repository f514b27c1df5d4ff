"""A prompt that is echoed: its pieces are the text, their logarithms the model's, whatever a token is."""

from __future__ import annotations

import math

import pytest

from stages.lm.model import LanguageModel
from stages.serving import prompt
from tests.stages.scoring.test_each import models

MODELS = models()
TEXT = "The sea,\nthe SEA! \U0001f642z over"


def measured(model: LanguageModel, text: str, likeliest: int) -> prompt.Prompt:
    """Without letting go."""
    reading = prompt.measured(model, text, likeliest)
    try:
        while True:
            next(reading)
    except StopIteration as end:
        found: prompt.Prompt = end.value
        return found


@pytest.fixture(params=MODELS)
def ours(request: pytest.FixtureRequest) -> LanguageModel:
    return MODELS[request.param]


def test_the_pieces_are_the_text_with_what_the_model_makes_of_each(ours: LanguageModel) -> None:
    plain, told = prompt.read(ours, TEXT), measured(ours, TEXT, 3)
    assert plain.tokens == told.tokens == len(ours.split(TEXT))
    assert [*plain.pieces] == [(ours.prompt(TEXT), None, ())]
    assert "".join(piece.text for piece in told.pieces) == ours.prompt(TEXT)
    assert told.pieces[0][1:] == (None, ())
    if ours.level == "char" and ours.normalizer == "lower":  # the book's has a line's end as a space in prompts
        expected = [logprob for _, logprob in ours.log_probabilities(TEXT)]
        assert [piece.logprob for piece in told.pieces[1:]] == pytest.approx(expected, abs=1e-4)


def test_the_likeliest_are_told_as_the_text_would_have_them(ours: LanguageModel) -> None:
    """So that whoever asks whether the text is the likeliest one finds it among them."""
    for piece in measured(ours, TEXT, len(ours.vocab)).pieces[1:]:
        assert math.fsum(math.exp(logprob) for _, logprob in piece.likeliest) == pytest.approx(1, abs=1e-4)
        itself = {text.strip() for text, logprob in piece.likeliest if logprob == piece.logprob}
        assert itself & {piece.text.strip(), "<unk>"} or "\ufffd" in "".join(itself)


def test_nothing_is_read_of_an_empty_prompt(ours: LanguageModel) -> None:
    assert prompt.read(ours, "") == measured(ours, "", 3) == prompt.Prompt(0, [])
