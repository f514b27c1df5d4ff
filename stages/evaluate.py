"""Measure a model on each split beside its baselines, let it write, and see what it has by heart: figures, no words."""

from __future__ import annotations

import json
from functools import lru_cache, partial
from itertools import accumulate, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from data.corpus.parts import Part, passes
from data.store.reading import digest
from data.tables.tokens import SPLITS, IndexTable
from stages.lm import metrics, stretches
from stages.lm.compared import Compared
from stages.lm.mixture import Mixture
from stages.lm.model import LanguageModel
from stages.lm.network import one_thread
from stages.lm.tally import Tally, summed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from data.corpus.parts import Pass
    from data.progress import Progress
    from data.tables.tokens import Ids, Split
    from stages.config import EvaluateConfig
    from stages.lm.predictor import Predictor, State
    from stages.lm.stretches import Chunks, Stretch
    from stages.lm.tally import Sum

    Reader = Predictor | Compared

MEMORIZED = 40
"""Characters of a window that, found in the training split as well, counts as known by heart."""
WRITTEN = 10, 500
"""What the model writes to be looked through for such windows: so many texts, from nothing and at temperature 1, of
about so many characters each, or of fewer where it ends a document."""
_DECODED = 1 << 20
"""Tokens of the training split that are text at once."""
_ROWS = {"train": 4, "valid": 2, "test": 4}
"""Of what `_reader` reads with a mixture, the row of the mixture that a split is measured by."""


def evaluate(
    config: EvaluateConfig,
    *,
    model: Path,
    tokens: Path,
    baselines: Path,
    checkpoints: Path,
    out: Path,
    progress: Progress,
    spread: Callable[[Path], AbstractContextManager[Pass]] | None = None,
) -> None:
    """Write ``metrics.json`` and ``samples.json`` into ``out``, or go on where this evaluation was interrupted.

    The loss of a split is the mean negative log-likelihood of its tokens but the first, with the state carried from
    its beginning to its end, and where documents have ends, from that of each to its end. A split of fewer than two
    tokens has nothing to predict: its metrics are null. A training split of more than `data.tables.tokens.LONGEST`
    tokens is measured on so many, its last; its figures, and those of the baselines beside them, are then of that part,
    and ``of`` says how many tokens the whole would have predicted.

    Of a mixture the training and the test split are measured with the n-gram that is in it, the validation split with
    one of the training split alone, by which the shares were chosen.

    ``metrics.json`` holds for each split ``loss`` (nats per token), ``perplexity``, ``bits_per_character`` (unknown
    tokens spelled out), ``tokens`` and ``unknown_rate``, with the same of ``windowed`` among them if asked for, and
    of a mixture of its ``parts``, ``network`` and ``ngram``, and for the test split of it ``before`` its n-gram counted
    the validation split; beside
    the splits ``baselines`` (baseline → split → figures) and ``memorization``, as `memorized` returns it.
    ``samples.json`` is a list of ``prefix``, ``temperature`` and ``text``.

    Args:
        config: what to continue, and how.
        model: a folder of `train`: ``model.safetensors``, ``config.json``, ``vocab.arrow``, maybe ``merges.arrow`` and
            ``ngrams.arrow``.
        tokens: the folder of `tokenize` that it was trained from: ``tokens.arrow``.
        baselines: the folder of ``stages.lm.baselines`` for the same tokens: ``baselines.json``.
        checkpoints: where what is measured so far is kept, of this evaluation and of no other.
        out: an empty folder.
        progress: told of tokens evaluated.
        spread: a pass over the stretches of a long split, see `data.corpus.parts.passes`: the same comes out.
    """
    language_model = LanguageModel.load(model)
    table = IndexTable.open(tokens / "tokens.arrow")
    several = [
        Part(stretch[1], stretch[-1])
        for name in SPLITS
        for split in [table.measured(name)]
        if len(split) > 2 * stretches.LENGTH
        for stretch in stretches.cut(_edges(language_model.network, split, 0), split.start)
    ]
    progress(0, 0, "reading the model")
    reader = _reader(language_model, table)
    with TemporaryDirectory(dir=out) as aside, passes(several, 1, _silent, Path(aside), spread, large=1) as over:
        far = partial(over, partial(_read, model=model, tokens=tokens, weights=digest(model / "model.safetensors")))
        measured = _measure(reader, table, config.window, Tally(checkpoints), progress, far)
    measured["baselines"] = _summaries(json.loads((baselines / "baselines.json").read_text(encoding="utf-8")), table)
    progress(0, 0, "looking for what it knows by heart")
    with one_thread():
        written = _written(language_model, table, config.seed)
        measured["memorization"] = memorized(written, _text(language_model, table))
        samples = [
            {"prefix": prefix, "temperature": temperature, "text": text}
            for prefix in config.prefixes or [language_model.opening(table.ids)]
            for temperature in sorted({0.0, config.temperature, 1.0})
            for text in [language_model.sample(prefix, config.length, temperature=temperature, seed=config.seed)]
        ]
    _write_json(out / "metrics.json", measured)
    _write_json(out / "samples.json", samples)


def _edges(reader: Reader, split: Split, window: int) -> list[int]:
    """Where the chunks of a split begin, and the last one ends; those of windows unless ``window`` is 0."""
    losses = max(len(split) - 1, 0)
    if window:
        span = reader.windowed_span(window)
        return [*range(split.start, split.start + losses, span), split.start + losses]
    return [*accumulate(reader.chunks(losses), initial=split.start)]


def _read(
    part: Part, stretch: Stretch, window: int, *, model: Path, tokens: Path, weights: str, folder: Path
) -> tuple[list[State], Chunks]:
    """What was read of a stretch; with the state reset every ``window`` tokens unless it is 0."""
    reader, ids = _opened(model, tokens, weights)
    if window:
        return [], [(one, []) for one in summed(reader.windowed_losses(ids[part.start : part.stop + 1], window))]
    return stretches.read(reader, ids, stretch)


@lru_cache(1)
def _opened(model: Path, tokens: Path, weights: str) -> tuple[Reader, Ids]:
    """Both, until there are other weights."""
    table = IndexTable.open(tokens / "tokens.arrow")
    return _reader(LanguageModel.load(model), table), table.ids


def _reader(model: LanguageModel, table: IndexTable) -> Reader:
    """What reads a text for the figures: the network, or a mixture beside its parts, and before it as it was when its
    n-gram had not counted the validation split. No figure of that split is of a model that knows it."""
    if isinstance(model.predictor, Mixture):
        return Compared(model.predictor.counting(table.split("train")), model.predictor)
    return model.network


def _silent(done: float, total: float, figures: str) -> None:
    """Progress is told of tokens."""


def _measure(
    reader: Reader,
    table: IndexTable,
    window: int,
    tally: Tally,
    progress: Progress,
    far: Callable[..., Iterable[tuple[list[State], Chunks]]],
) -> dict[str, Any]:
    """Split → figures, those with the state reset every ``window`` tokens among them unless it is 0.

    A long split is read by ``far(parts, stretches, windows)``.
    """
    total = sum(max(len(table.measured(name)) - 1, 0) for name in SPLITS) * (2 if window else 1)
    before = 0
    name = ""

    def advance(done: int) -> None:
        progress(before + done, total, f"evaluating the {name} split")

    def sums(done: int, states: list[State], *, split: Split, window: int) -> Iterable[Sum]:
        if len(split) <= 2 * stretches.LENGTH:
            ids = table.ids[split.start + done : split.stop]
            return summed(reader.windowed_losses(ids, window) if window else reader.losses(ids, states))
        some = [*stretches.cut(_edges(reader, split, window), split.start + done)]
        found = far([Part(one[1], one[-1]) for one in some], some, repeat(window))
        return stretches.joined(reader, table.ids, some, found, states)

    measured: dict[str, Any] = {}
    for name in SPLITS:
        split = table.measured(name)
        predicted = len(split) - 1
        if predicted < 1:
            measured[name] = None
            continue

        figures = partial(metrics.summarize, tokens=predicted, characters=split.characters, spelling=split.spelling)
        losses = tally.means(name, partial(sums, split=split, window=0), reader.beginning(), advance)
        before += predicted
        row = _ROWS[name] if len(losses) > 1 else 0
        measured[name] = {**figures(losses[row]), "unknown_rate": split.unknown_rate}
        if split is not table.splits[name]:
            measured[name]["of"] = len(table.splits[name]) - 1
        if row:
            parts = {"network": losses[0], "ngram": losses[row - 1]}
            if name == "test" and len(table.splits["valid"]):
                parts["before"] = losses[_ROWS["valid"]]
            measured[name]["parts"] = {part: figures(loss) for part, loss in parts.items()}
        if window:
            windowed, every = partial(sums, split=split, window=window), reader.windowed_span(window)
            losses = tally.means(f"{name}, windowed", windowed, [], advance, every=every)
            before += predicted
            measured[name]["windowed"] = {"window": window, **figures(losses[row])}
    return measured


def _summaries(baselines: Mapping[str, Any], table: IndexTable) -> dict[str, dict[str, Any]]:
    """Baseline → split → figures; beside the 5-gram's, how many training tokens it was counted on."""
    summaries: dict[str, dict[str, Any]] = {
        baseline: {
            name: None if loss is None else metrics.summarize(loss, len(split) - 1, split.characters, split.spelling)
            for name, loss in losses.items()
            for split in [table.measured(name)]
        }
        for baseline, losses in baselines["losses"].items()
    }
    summaries["5gram"]["fitted_on"] = baselines["fitted_on"]
    return summaries


def memorized(
    written: Iterable[str], training: Iterable[str], length: int = MEMORIZED
) -> dict[str, float | int | None]:
    """How much of what a model wrote stands in its training text, word for word.

    Args:
        written: texts.
        training: a text in pieces, of which one is held at a time.
        length: characters of a window; a text of n characters has n - ``length`` + 1 windows, one from each place.

    Returns:
        ``length``; ``windows``, how many were written; ``share``, the fraction of them that stand in the training
        text, None where there are none.
    """
    windows = [text[at : at + length] for text in written for at in range(len(text) - length + 1)]
    wanted, found = set(windows), set[str]()
    begun = ""
    for piece in training if wanted else ():
        text = begun + piece
        found.update(window for at in range(len(text) - length + 1) if (window := text[at : at + length]) in wanted)
        begun = text[len(text) - length + 1 :] if len(text) >= length else text
    share = sum(window in found for window in windows) / len(windows) if windows else None
    return {"length": length, "windows": len(windows), "share": share}


def _written(model: LanguageModel, table: IndexTable, seed: int) -> Iterator[str]:
    """What the model writes when nothing is given to it."""
    texts, characters = WRITTEN
    split = table.splits["train"]
    tokens = max(round(characters * len(split) / split.characters), 1)
    return model.samples("", tokens, 1.0, range(seed, seed + texts))


def _text(model: LanguageModel, table: IndexTable) -> Iterator[str]:
    """The training split as the model would write it, in pieces; and the validation split, if an n-gram counts it."""
    last = "valid" if isinstance(model.predictor, Mixture) else "train"
    ids, tokens = table.ids[: table.splits[last].stop], model.vocab.tokens
    pieces = ((tokens[row] for row in ids[start : start + _DECODED].tolist()) for start in range(0, len(ids), _DECODED))
    return model.kind.texts(pieces)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
