"""A model that was trained nowhere."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.tables.vocab import Vocab
from stages.lm.parameters import Architecture


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Its folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    vocab = Vocab(["<unk>", *" abcdefghijklmnopqrstuvwxyz\n"], [0] * 29)
    architecture = Architecture("gru", "tanh", 16, 1, len(vocab), 8)
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in architecture.shapes().items()}
    save_file(weights, folder / "model.safetensors")
    vocab.write(folder / "vocab.arrow")
    description = {"format": 2, **asdict(architecture), "level": "char", "normalizer": "lower", "epoch": 1}
    (folder / "config.json").write_text(json.dumps(description), encoding="utf-8")
    return folder
