"""A model's folder as it lies on a disk: read, and refused where its files do not make one model."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.corpus.level import LEVELS
from data.corpus.text import NORMALIZERS
from data.errors import StoreError
from data.store import reading
from data.tables.ngrams import NGRAMS
from data.tables.vocab import MERGES, Vocab
from stages.lm.ngram import NGram
from stages.lm.parameters import FORMAT, MIXED, Architecture, together

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from data.corpus.text import LevelName, Normalizer
    from stages.lm.parameters import Parameters

COPIES = 3
"""Of its weights, at most, that a model holds while it is made ready: as they lie there, turned, and halved."""


class Stored(NamedTuple):
    """What makes a model."""

    architecture: Architecture
    weights: Parameters
    vocab: Vocab
    level: LevelName
    normalizer: Normalizer
    ngram: NGram | None
    """Which stands beside the network, in a mixture."""
    shares: tuple[float, ...]
    """See `stages.lm.mixture.Mixture`."""


def read(folder: Path, *, finite: bool) -> Stored:
    """Read ``config.json``, ``model.safetensors``, ``vocab.arrow`` and, of subwords, ``merges.arrow``, of a mixture
    ``ngrams.arrow``; see `stages.lm.model.LanguageModel.load`."""
    architecture, level, normalizer, shares = _described(folder / "config.json")
    _as_published(folder)
    weights = read_weights(folder / "model.safetensors", architecture, finite=finite)
    path, noun = folder / "vocab.arrow", LEVELS[level].noun
    vocab = Vocab.read(path, merged=LEVELS[level].merged)
    if len(vocab) != architecture.vocab_size:
        raise StoreError(f"{path} has {len(vocab):,} tokens and the model {architecture.vocab_size:,}: train again")
    if vocab.ends is not architecture.ends:
        raise StoreError(f"{path} and the model do not agree on whether documents have ends: train again")
    if misfit := vocab.misfit(LEVELS[level]):
        raise StoreError(f"{path} has {misfit}, which is no {noun}: train again")
    ngram = _ngram(folder / NGRAMS, architecture, shares) if shares else None
    return Stored(architecture, weights, vocab, level, normalizer, ngram, shares)


def _ngram(path: Path, architecture: Architecture, shares: tuple[float, ...]) -> NGram:
    ngram = NGram.open(path, architecture.vocab_size)
    if ngram.ends is not architecture.ends or len(ngram.orders) > len(shares):
        raise StoreError(f"{path} and the model in config.json do not belong together: train again")
    return ngram


def _as_published(folder: Path) -> None:
    """See that the files are those that a manifest beside them names; what it does not name is taken at its word."""
    with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        outputs = json.loads(reading.read(folder / "manifest.json", reading.SMALL))["outputs"]
        for name in ("config.json", "model.safetensors", "vocab.arrow", *({MERGES, NGRAMS} & {*outputs})):
            if reading.digest(folder / name) != outputs[name]["sha256"]:
                raise StoreError(f"the content of {folder / name} is not what was published: train again")


def _described(path: Path) -> tuple[Architecture, LevelName, Normalizer, tuple[float, ...]]:
    written = b""
    try:
        config = json.loads(written := reading.read(path, reading.SMALL))
        architecture = Architecture.parse(config)
        level, normalizer = config["level"], config["normalizer"]
        if level not in [*LEVELS] or normalizer not in NORMALIZERS:
            raise ValueError("its level or its normalizer is unknown")
        if (level == "letter") is not (config["format"] == FORMAT):
            raise ValueError("its format and its level do not agree")
        mixed = config["format"] == MIXED or (config["format"] > MIXED and "mixture" in config)
        shares = tuple(config["mixture"]["shares"]) if mixed else ()
        if not all(type(share) is float and 0 < share < 1 for share in shares) or (mixed and not shares):
            raise ValueError("its shares of network and n-gram are none")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reading.known(path, written, FORMAT, "use a model that this version has trained")
        raise StoreError(f"{path} does not describe a model ({_said(error)}): train again") from None
    return architecture, level, normalizer, shares


def read_weights(path: Path, architecture: Architecture, *, finite: bool = True) -> Parameters:
    """The weights of a model, read only once the header has said that these are the weights of such a model."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(reading.check(path), framework="numpy") as file:
            names = file.keys()
            kinds = {name: file.get_slice(name) for name in names}
            _fit(
                path, architecture, {name: (kind.get_dtype(), tuple(kind.get_shape())) for name, kind in kinds.items()}
            )
            weights = {name: file.get_tensor(name) for name in names}
    except (OSError, ValueError, SafetensorError) as error:
        raise StoreError(f"{path} holds no weights that can be read ({_said(error)}): train again") from None
    broken = [name for name, array in weights.items() if finite and not np.isfinite(array).all()]
    if broken:
        raise StoreError(f"{path} has weights that are not finite (see {broken[0]}): train again")
    return weights


def _fit(path: Path, architecture: Architecture, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """See that arrays, each of a type and a shape, are those of a model, and that this machine can hold it."""
    for name in ("layers", "networks"):  # numbers that anybody may have written
        if getattr(architecture, name) > len(found):
            raise StoreError(f"{path} does not fit the model in config.json (see its {name}): train again")
    shapes = together([architecture.shapes()] * architecture.networks)
    expected = {name: ("F32", shape) for name, shape in shapes.items()}
    if found != expected:
        wrong = min(set(found.items()) ^ set(expected.items()))[0]
        kind = found.get(wrong, ("F32", ()))[0]
        what = "does not fit the model in config.json" if kind == "F32" else f"has weights that are {kind} and not F32"
        raise StoreError(f"{path} {what} (see {wrong}): train again")
    needed = COPIES * path.stat().st_size
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise StoreError(
            f"{path} would need {needed / 1e9:,.0f} GB and this machine has {there / 1e9:,.0f}: use a smaller model"
        )


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return str(error) or type(error).__name__
