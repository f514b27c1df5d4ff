"""Champions to be surprised: one that was trained, and ones that know the letters of a text and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.progress import LogLines
from data.store.folder import Store
from data.tables.vocab import Vocab
from stages.config import RunConfig, TokenizeConfig
from stages.lm.parameters import Architecture
from stages.pipeline.run import Outcome, Walk, perform
from stages.promotion.contender import Contender
from stages.tokenize import tokenize


@pytest.fixture(scope="session")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Contender:
    """A small LSTM that has read the story `sample`, in lower case, and needs 2.4 bits per character of its end."""
    recipe = {"cell": "lstm", "embedding_size": 16, "initializer": "uniform", "optimizer": "adamw", "averaging": 0}
    config = RunConfig.model_validate(
        {"train": {**recipe, "hidden_size": 64, "learning_rate": 0.01, "epochs": 8, "num_steps": 30, "engine": "bptt"}}
    )
    store = Store(tmp_path_factory.mktemp("champion"))

    def one(name: str, upstream: Any) -> Outcome:
        return perform(name, config, upstream, store, LogLines(name))

    walk = Walk(one)
    walk.to("train")
    return Contender(*(walk.artifacts[name].folder for name in ("train", "tokenize", "download")))


Untrained = Callable[..., Contender]


@pytest.fixture(scope="session")
def untrained() -> Untrained:
    """Makes a champion of a folder's ``corpus.txt``: ``untrained(folder, **fields of tokenize)``. To it all tokens that
    it knows are as likely."""

    def make(corpus: Path, **fields: Any) -> Contender:
        tokens, model = corpus.with_name("tokens"), corpus.with_name("model")
        for folder in (tokens, model):
            folder.mkdir()
        config = TokenizeConfig(**fields)
        tokenize(config, corpus=corpus, out=tokens, progress=LogLines("tokenize"))
        vocab = Vocab.read(tokens / "vocab.arrow", merged=config.level == "bpe")
        architecture = Architecture("rnn", "tanh", 2, 1, len(vocab), ends=vocab.ends)
        weights = {name: np.zeros(shape, np.float32) for name, shape in architecture.shapes().items()}
        save_file(weights, model / "model.safetensors")
        vocab.write(model / "vocab.arrow")
        form = 7 if config.level == "letter" else 4
        facts = {**asdict(architecture), "level": config.level, "normalizer": config.normalizer}
        (model / "config.json").write_text(json.dumps({"format": form, "epoch": 1, **facts}), encoding="utf-8")
        return Contender(model, tokens, corpus)

    return make
