"""The words: sentences that are true of the figures, and how values are spelt."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from data.corpus.level import BPE, CHAR, LEVELS
from stages.report import beside, words
from stages.report.gather import Report

Run = Callable[..., Report]

# --- the model


def described(epochs: int = 12, **changes: Any) -> str:
    model = {"cell": "lstm", "activation": "tanh", "hidden_size": 512, "layers": 1, "vocab_size": 1066}
    model |= {"embedding_size": 0, "tie_weights": False, "level": "char", "epoch": 12} | changes
    return words.description(model, epochs)


def test_the_model_is_described() -> None:
    assert described() == "LSTM, 1 layer of 512 hidden units over 1,066 characters, trained for 12 epochs."
    embedded = described(layers=2, level="word", embedding_size=512, tie_weights=True)
    assert (
        "LSTM, 2 layers of 512 hidden units over 1,066 words, an embedding of 512 tied to the output layer," in embedded
    )
    assert described(embedding_size=64).split(", ")[2] == "an embedding of 64"
    assert described(cell="rnn").startswith("tanh RNN, ")
    assert described(cell="rnn", activation="relu").startswith("ReLU RNN, ")


def test_weights_of_an_earlier_epoch_are_said_to_be() -> None:
    assert described(epoch=7).endswith("trained for 12 epochs; its weights are those after epoch 7.")


@pytest.mark.parametrize(("passes", "spelt"), [(0.3712, "0.37"), (0.00371, "0.0037"), (12.345, "12.35")])
def test_a_training_that_tokens_ended_says_what_share_of_an_epoch_it_was(passes: float, spelt: str) -> None:
    told = described(tokens=400_123, passes=passes)
    assert told.endswith(f"1,066 characters, trained on 400,123 characters, {spelt} epochs.")
    assert described(tokens=400_123, passes=passes, epoch=7).endswith(
        f", {spelt} epochs; its weights are those after part 7 of 12."
    )


RANDOM = "".join(random.Random(0).choices("abcdefgh", k=600))
QUICK = {"hidden_size": 64, "optimizer": "adam", "learning_rate": 0.01}


def test_training_that_ended_early_is_not_said_to_be_longer(run: Run) -> None:
    report = run(text=RANDOM, train={**QUICK, "epochs": 40, "patience": 3})
    found = re.findall(r"trained for (\d+) epochs; its weights are those after epoch (\d+)", report.description)
    epochs, kept = map(int, found[0])
    assert kept + 3 == epochs < 40


def test_the_gradients_are_told() -> None:
    history: dict[str, Any] = {
        "epoch": [1, 2, 3],
        "grad_norm_mean": [0.5, 0.7, 0.6123],
        "grad_norm_max": [1.0, 20.0, 3.0],
    }
    assert words.gradients(history) == (
        "The gradient's norm, before it was clipped, was 0.5 on average in the first epoch and 0.612 in the last; the "
        "longest of all was 20, in epoch 2."
    )
    assert words.gradients(history, "part").endswith(
        "on average in the first part and 0.612 in the last; the longest of all was 20, in part 2."
    )


# --- its figures

SENTENCE = "red and blue and green and gold and pink and white and "


@pytest.mark.parametrize(
    ("epochs", "text", "sentence"),
    [
        (20, SENTENCE * 20, "where a 5-gram reaches"),
        (1, SENTENCE * 5, "no better than mere token frequencies"),
        (40, RANDOM, "learnt its text by heart"),
    ],
    ids=["learnt", "not yet", "by heart"],
)
def test_the_summary_tells_learning_from_memory(run: Run, epochs: int, text: str, sentence: str) -> None:
    train = {**QUICK, "epochs": epochs, "num_steps": 16} if epochs > 1 else {"epochs": 1}
    assert sentence in run(text=text, train=train, evaluate={"prefixes": ["a"]}).summary


SUMMARIES = {  # perplexities of train and test: the model's, the 5-gram's, the unigram's
    "better than both": ((4, 5), (3, 7), (19, 20), "5.00 on unseen text, where a 5-gram reaches 7.00."),
    "a 5-gram that is no help": (
        (4, 5),
        (3, 9),
        (7, 8),
        "5.00 on unseen text, where mere token frequencies reach 8.00.",
    ),
    "learns little": (
        (8, 9),
        (5, 7),
        (19, 20),
        "worse there than a 5-gram (7.00), better than mere token frequencies.",
    ),
    "overfits": ((2, 9), (5, 7), (19, 20), "worse there than a 5-gram (7.00); it remembers more than it has learnt."),
    "by heart": ((2, 50), (5, 7), (19, 20), "worse there than mere token frequencies (20.00); it has learnt its text"),
    "between the two": ((2, 8.5), (3, 9), (7, 8), "worse there than mere token frequencies (8.00); it has learnt its"),
    "nothing yet": ((24, 25), (5, 7), (19, 20), "no better than mere token frequencies (20.00); it needs more epochs"),
    "diverged": ((1e6, 1e7), (5, 7), (19, 20), "training has diverged; try a smaller train.learning_rate."),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_the_summary_is_honest(name: str) -> None:
    *perplexities, sentence = SUMMARIES[name]
    rows = [
        {
            split: {"perplexity": figure, "bits_per_character": 1.5, "unknown_rate": 0.0}
            for split, figure in zip(("train", "test"), row, strict=True)
        }
        for row in [*perplexities, (30.0, 30.0)]
    ]
    metrics = {
        **rows[0],
        "valid": None,
        "baselines": dict(zip(("5gram", "unigram", "uniform"), rows[1:], strict=True)),
    }
    assert sentence in words.summary(metrics, CHAR)


def test_a_model_of_words_is_measured_by_word_and_by_character(run: Run) -> None:
    report = run(tokenize={"level": "word"}, evaluate={"prefixes": ["the cat"], "window": 5})
    train, test = report.metrics["train"], report.metrics["test"]
    assert report.summary.startswith(
        f"Perplexity per word {train['perplexity']:.2f} on what it trained on, {test['perplexity']:.2f} on unseen text "
        f"({test['bits_per_character']:.3f} bits per character, {test['unknown_rate']:.2%} of its words unknown)"
    )
    assert words.windowed(report.metrics, "word").startswith("With the state reset every 5 words")


def test_subwords_are_called_so_and_measured_by_character_too(tiny: Report) -> None:
    test = tiny.metrics["test"]
    said = words.summary(tiny.metrics, BPE)
    assert said.startswith("Perplexity per subword ")
    assert f"on unseen text ({test['bits_per_character']:.3f} bits per character)" in said
    assert " over 28 subwords" in words.description({**tiny.model, "level": "bpe", "vocab_size": 28}, 1)


def test_what_is_unknown_stands_beside_the_figures(tiny: Report) -> None:
    def told(rate: float, noun: str) -> str:
        metrics = {**tiny.metrics, "test": {**tiny.metrics["test"], "unknown_rate": rate}}
        level = LEVELS["word" if noun == "word" else "char"]
        assert (f"{rate:.2%} of its {noun}s unknown)" in words.summary(metrics, level)) == (rate > 0)
        return words.unknown(metrics, noun)

    assert told(0, "character") == ""
    some = told(0.4, "word")
    assert some.startswith("Bits per character hold what spelling out the unknown words takes")
    most = told(1, "word")
    assert most.startswith("100% of the test split's words are unknown, so that perplexity says next to nothing.")
    assert "Where the text has few spaces, set tokenize.level=char" in most
    assert most.endswith(some)
    assert "level=char" not in told(0.6, "character")


def test_what_it_knows_by_heart_is_told(run: Run, tiny: Report) -> None:
    found = {"memorization": {"length": 40, "windows": 4610, "share": 0.0123}}
    assert words.memory(found) == (
        "Of the 4,610 stretches of 40 characters in what it wrote from nothing at temperature 1, 1.23% stand in the "
        "training text word for word."
    )
    nothing = {"memorization": {"length": 40, "windows": 0, "share": None}}
    assert words.memory(nothing).startswith("It wrote too little to tell what it knows by heart")
    assert words.memory(tiny.metrics).startswith("Of the 4,610 stretches of 40 characters")


def test_a_5_gram_counted_on_a_part_says_so(tiny: Report) -> None:
    baselines = {**tiny.metrics["baselines"], "5gram": {**tiny.metrics["baselines"]["5gram"], "fitted_on": 1000}}
    said = "The 5-gram was counted on the last 1,000 characters of it."
    assert said in beside.baselines({**tiny.metrics, "baselines": baselines}, "character")
    assert "was counted on" not in beside.baselines(tiny.metrics, "character")


def test_the_metrics_of_old_artifacts_may_hold_sentences_of_their_own(tiny: Report) -> None:
    old = replace(tiny, metrics={**tiny.metrics, "description": "An old one.", "summary": "It was good."})
    assert (old.description, old.summary) == (tiny.description, tiny.summary)


# --- how values are spelt


@pytest.mark.parametrize(
    ("value", "spelt"),
    [(None, "–"), (4.634, "4.63"), (1234.5678, "1,234.57"), (999_999, "999,999.00"), (1.234e6, "1.2e+06")],
)
def test_a_figure_fits_its_column(value: float | None, spelt: str) -> None:
    assert words.figure(value) == spelt


def test_figures_have_the_digits_that_are_asked_for() -> None:
    assert words.figure(2.21061, 4) == "2.2106"
    assert words.figure(123_456.7, 0) == "123,457"
    assert [words.signed(bits) for bits in (0.0213, -0.004)] == ["+0.0213", "−0.0040"]


@pytest.mark.parametrize(
    ("length", "spelt"), [(0, "0 B"), (999, "999 B"), (45_678, "45.7 kB"), (3e6, "3.0 MB"), (1.25e13, "12,500.0 GB")]
)
def test_a_size_has_the_unit_that_suits_it(length: float, spelt: str) -> None:
    assert words.size(length) == spelt


@pytest.mark.parametrize(
    ("seconds", "spelt"), [(0, "0.0 s"), (17.34, "17.3 s"), (65, "1 min 05 s"), (7620, "2 h 07 min")]
)
def test_a_duration_is_told_in_the_units_of_a_clock(seconds: float, spelt: str) -> None:
    assert words.duration(seconds) == spelt


def test_a_phrase_becomes_a_sentence() -> None:
    assert words.sentence("it could be chance") == "It could be chance."
    assert words.sentence("It is one.") == "It is one."


def test_a_decision_in_a_list_begins_with_its_figures(promoted: dict[str, Any]) -> None:
    assert words.decided("promoted", "it is better", promoted) == (
        "promoted: +0.0213 (+0.0117 to +0.0309): it is better"
    )
    assert words.decided("refused", "the corpus shrank", {"tests": []}) == "refused: the corpus shrank"
