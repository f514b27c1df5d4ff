"""For a hub of models: the artifact's files as they are, and a card that says what the model is and where it is from.

Nothing in it has to be executed. `stages.lm.model.LanguageModel.load` reads the folder, and of it other programs read
``model.safetensors``, ``config.json`` and ``vocab.json``.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from data.tables.ngrams import NGRAMS
from data.tables.vocab import MERGES
from stages.export import beside, card
from stages.lm import stored

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("config.json", "model.safetensors", "vocab.arrow", MERGES, NGRAMS)
"""Of a model; the last two not of each."""


def write(model: Path, out: Path) -> None:
    """Write the model's own files, ``vocab.json`` and the card, ``README.md``.

    Args:
        model: a model's folder; what lies in the same store tells more of it.
        out: an empty one.

    Raises:
        StoreError: no model that can be read, or weights that are not finite.
    """
    found = stored.read(model, finite=True)
    for name in FILES:
        if (model / name).exists():
            shutil.copyfile(model / name, out / name)
    beside.vocabulary(out / beside.VOCABULARY, found)
    (out / beside.PAGE).write_text(card.text(found, card.origin(model)), encoding="utf-8")
