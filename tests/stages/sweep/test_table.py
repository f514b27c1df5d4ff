"""The table of a sweep's trials."""

from __future__ import annotations

import math

from data.tables.tokens import Split
from stages.config import RunConfig, TrainConfig
from stages.sweep import table
from stages.sweep.space import settings
from stages.sweep.trial import Trial

CONFIG = RunConfig(train=TrainConfig(epochs=1000))
RANKED = [
    Trial(
        CONFIG,
        {"train.cell": "gru", "train.tie_weights": False},
        valid=Split(0, 200, characters=200, unknown=3),
        model="1234567890abcdef99",
        curve=[2.0] * 1000,
        bits=2.0,
        perplexity=4.0,
        seconds=1234.56,
    ),
    Trial(CONFIG, {"train.cell": "rnn", "train.tie_weights": True}, state="failed", reason="this | that"),
]


def test_a_table_has_a_row_for_each_trial_and_can_be_read_as_it_stands() -> None:
    lines = table.markdown(table.rows(RANKED)).splitlines()
    assert len(lines) == 2 + 2
    assert len({len(line) for line in lines}) == 1, "its columns are aligned"
    heading, rule, best, failed = ([cell.strip() for cell in line[2:-2].split(" | ")] for line in lines)
    assert heading[:3] == ["rank", "train.cell", "train.tie_weights"]
    assert all(set(cell) <= {"-", ":"} for cell in rule)
    cells = [
        "1",
        "gru",
        "false",
        "2.0000",
        "1.50%",
        "4.0000",
        "1,000 of 1,000",
        "1234.6",
        "1234567890abcdef",
        "trained to the end",
    ]
    assert best == cells
    assert failed == ["2", "rnn", "true", "–", "–", "–", "0 of 1,000", "0.0", "–", r"this \| that"]


def test_settings_can_be_typed_again_and_results_are_numbered() -> None:
    assert settings(RANKED[0].values) == "train.cell=gru train.tie_weights=false"
    assert [(one["rank"], one["state"]) for one in table.results(RANKED)] == [(1, "finished"), (2, "failed")]
    assert math.isinf(RANKED[1].bits)
    assert table.results(RANKED)[1]["bits_per_character"] is None
