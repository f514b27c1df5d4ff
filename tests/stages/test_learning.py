"""Training learns: not less than counting would, and a text that repeats itself nearly by heart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.corpus import text
from data.tables.tokens import Ids, IndexTable, Split
from data.tables.vocab import Vocab
from stages.config import TrainConfig
from stages.lm import metrics
from stages.lm.model import LanguageModel
from stages.lm.unigram import Unigram, uniform_loss
from stages.train import train
from stages.training import engines

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpora" / "timemachine.txt"


def learn(folder: Path, learned: str, held_out: str = "", **config: Any) -> tuple[LanguageModel, Ids, Ids]:
    """Train on a text and give the model back, with the ids of both parts."""
    whole = learned + held_out
    vocab = Vocab.build(Counter(whole))
    ids = np.array(vocab.ids(whole), vocab.id_type)
    border = len(learned)
    splits = {
        "train": Split(0, border, border, 0),
        "valid": Split(border, len(ids), len(held_out), 0),
        "test": Split(len(ids), len(ids), 0, 0),
    }
    tokens, out = folder / "tokens", folder / "model"
    tokens.mkdir()
    out.mkdir()
    IndexTable(ids, splits, "char", "book", "0" * 64, len(vocab)).write(tokens / "tokens.arrow")
    vocab.write(tokens / "vocab.arrow")
    train(
        TrainConfig(**config),
        tokens=tokens,
        out=out,
        progress=lambda *call: None,
        checkpoints=folder / "checkpoints",
        engine=engines.choose(TrainConfig(device="cpu")).build,
    )
    return LanguageModel.load(out), ids[:border], ids[border:]


@pytest.fixture(scope="module")
def time_machine() -> str:
    if not CORPUS.exists():
        pytest.skip(f"the corpus {CORPUS.name} is not here")
    return "".join(text.normalize(text.read(CORPUS), "book", "char"))


@pytest.mark.parametrize(
    ("cell", "optimizer", "rate", "epochs"),
    [("rnn", "sgd", 1.0, 25), ("gru", "adam", 0.02, 12), ("lstm", "adam", 0.02, 12)],
)
def test_a_text_that_repeats_itself_is_learnt_by_heart(
    tmp_path: Path, cell: str, optimizer: str, rate: float, epochs: int
) -> None:
    sentence = "for so it will be convenient to speak of him "
    model, ids, _ = learn(
        tmp_path,
        sentence * 60,
        cell=cell,
        hidden_size=32,
        batch_size=8,
        num_steps=20,
        optimizer=optimizer,
        epochs=epochs,
        learning_rate=rate,
    )
    assert metrics.perplexity(Unigram.fit(ids, len(model.vocab)).loss(ids)) > 8
    assert metrics.perplexity(model.network.loss(ids)) < 1.3
    assert model.sample("for so it", 80) == (sentence * 3)[:89]


def test_the_time_machine_is_better_known_than_by_counting(tmp_path: Path, time_machine: str) -> None:
    model, learned, held_out = learn(
        tmp_path, time_machine[:10_000], time_machine[10_000:14_000], hidden_size=128, epochs=30
    )
    unigram = Unigram.fit(learned, len(model.vocab))
    for ids in (learned, held_out):
        assert model.network.loss(ids) < unigram.loss(ids) - 0.4 < uniform_loss(len(model.vocab))
