"""From text to ids: the vocabulary and the index table of a corpus, streamed, whatever its size.

The text is read once, and kept as pieces: these are counted, as far as the vocabulary is fitted on them, and looked up.
It is read in parts, a large text by several processes. What happens to a piece is in `data.tables.counts`: one is an
array of code points (characters) or of words, cut anywhere between tokens. For subwords the words are the pieces of
`data.corpus.subwords`, from the counts of which the merges are learnt that cut them into tokens.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import shutil
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from data.corpus import bpe, pieces, text
from data.corpus.level import BPE, LEVELS, WORD
from data.corpus.parts import passes
from data.errors import CorpusError
from data.tables.counts import count, index, merge
from data.tables.merges import Merges
from data.tables.tokens import LONGEST, SPLITS, IndexTable, Split
from data.tables.vocab import Vocab
from stages.lm.spelling import Spelling

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from data.corpus.level import Piece
    from data.corpus.parts import Mapped, Part
    from data.corpus.text import LevelName, Normalizer
    from data.progress import Progress
    from data.tables.tokens import Ids
    from stages.config import TokenizeConfig

    Ranges: TypeAlias = Mapping[str, tuple[int, int]]
    """Of tokens, or of the pieces that they are parts of, by what they are called."""

logger = logging.getLogger(__name__)

LEARNING = "learning subwords"
"""What is said of the progress between two passes."""
MOSTLY_UNKNOWN = 0.5
"""A validation or test split with a larger share of unknown tokens is warned of."""


def tokenize(
    config: TokenizeConfig,
    *,
    corpus: Path,
    out: Path,
    progress: Progress,
    spread: Callable[[Path], AbstractContextManager[Mapped]] | None = None,
) -> None:
    """Write ``out/vocab.arrow`` and ``out/tokens.arrow`` for the text in ``corpus/corpus.txt``; of subwords also
    ``out/merges.arrow``.

    Args:
        config: what a token is, which are known, and where the splits end.
        corpus: a folder that `download` wrote.
        out: an empty folder.
        progress: is told bytes, over all passes, and their rate; between two of them that subwords are learnt.
        spread: passes over the parts of a text, see `data.corpus.parts.passes`: the same comes out.

    Raises:
        CorpusError: a text of which nothing is left to train on, or that is not UTF-8.
    """
    path = corpus / "corpus.txt"
    source = _Source(path, config.level, text.normalizer(config.normalizer, nfc=config.nfc, line_ends=config.line_ends))
    fit_on_all = config.fit_vocab_on == "all"
    limit = config.max_tokens or sys.maxsize
    digest = _digest(path)
    with TemporaryDirectory(dir=out) as aside, passes(path, 3, progress, Path(aside), spread) as over:
        starts, characters = [0], 0  # of the parts, and the end of the last; before they were normalised
        read_on = repeat(sys.maxsize if fit_on_all else limit)
        for tokens, had in over(partial(_keep, source=source), read_on):
            starts.append(starts[-1] + tokens)
            characters += had
            if not fit_on_all and starts[-1] >= limit:
                break
        total = min(starts[-1], limit)
        ends = bounds(total, config)
        _check(total, ends, config, path)
        fitted = _before(sys.maxsize if fit_on_all else ends[0], starts[:-1])
        counts = merge(over(partial(_count, source=source), fitted))
        vocab = _vocabulary(counts, config, progress)
        ranges = dict(zip(SPLITS, itertools.pairwise((0, *ends)), strict=True))
        if ends[0] > LONGEST:
            ranges["part"] = ends[0] - LONGEST, ends[0]
        read = {name: Spelling() for name in ranges}
        spill = Path(aside, "ids")
        spill.touch()
        indexed = partial(_index, source=source, vocab=vocab, ranges=ranges, spill=spill)
        for written, found in over(indexed, _before(total, starts[:-1]), starts):
            _append(written, spill)
            for name, one in found.items():
                read[name].extend(one)
        splits = {name: _split(read[name], stop) for name, stop in zip(SPLITS, _ends(read), strict=True)}
        part = _split(read["part"], splits["train"].stop) if "part" in read else None
        ids = np.memmap(spill, vocab.id_type, "r")
        kinds = config.level, source.normalizer
        IndexTable(ids, splits, *kinds, digest.result(), len(vocab), part=part).write(out / "tokens.arrow")
    vocab.write(out / "vocab.arrow")
    _report(splits, len(vocab), characters, config)


def bounds(total: int, config: TokenizeConfig) -> tuple[int, int, int]:
    """Where the training, the validation and the test split of ``total`` tokens end.

    The fractions are taken as the decimals that were written, so that 90 % of ten tokens are nine.
    """
    train, valid = (Fraction(str(fraction)) for fraction in (config.train_share, config.valid_share))
    valid_stop = int(total * (train + valid)) if config.test_share else total
    train_stop = int(total * train) if config.valid_share else valid_stop
    return train_stop, valid_stop, total


def _before(stop: int, starts: list[int]) -> list[int]:
    """For the parts that begin before a token: how many tokens it is from there."""
    return [stop - start for start in starts if start < stop]


@dataclass(frozen=True)
class _Source:
    """A text and how it becomes tokens."""

    path: Path
    level: LevelName
    normalizer: Normalizer

    def pieces(self, chunks: Iterable[str], limit: int) -> Iterator[Piece]:
        """The first ``limit`` tokens of chunks, a piece at a time."""
        for piece in LEVELS[self.level].pieces(text.normalize(chunks, self.normalizer, self.level)):
            yield piece[:limit]
            limit -= len(piece)
            if limit <= 0:
                return


def _keep(part: Part, limit: int, *, source: _Source, folder: Path) -> tuple[int, int]:
    """Read a part and keep its first tokens in a file.

    Returns:
        How many there are, and the characters that were read, before they were normalised.
    """
    characters = 0

    def chunks() -> Iterator[str]:
        nonlocal characters
        for chunk in text.read(source.path, part=part):
            characters += len(chunk)
            yield chunk

    path = _kept(folder, part)
    half = path.with_suffix(".half")
    tokens = sum(pieces.keep(source.pieces(chunks(), limit), half))
    half.replace(path)
    return tokens, characters


def _kept(folder: Path, part: Part) -> Path:
    return folder / f"{part.start}"


def _pieces(part: Part, limit: int, *, source: _Source, folder: Path) -> Iterator[Piece]:
    """The first tokens of a part: as they were kept, or read again where somebody else has kept them, or had."""
    path = _kept(folder, part)
    if not path.exists():
        _keep(part, sys.maxsize, source=source, folder=folder)
    return pieces.kept(path, limit)


def _count(part: Part, limit: int, *, source: _Source, folder: Path) -> Counter[str]:
    """How often each token stands among the first ones of a part."""
    return merge(map(count, _pieces(part, limit, source=source, folder=folder)))


def _vocabulary(counts: Counter[str], config: TokenizeConfig, progress: Progress) -> Vocab:
    if config.level == BPE.name:
        progress(2, 3, LEARNING)  # of the passes
        # All rows but that of <unk>.
        return Vocab.merged(counts, Merges(bpe.learn(counts, config.vocab_size - 1, config.min_freq)))
    vocab = Vocab.build(counts, config.min_freq)
    if len(vocab) == 1:
        raise CorpusError(f"every token is seen less than {config.min_freq:,} times: lower tokenize.min_freq")
    return vocab


def _index(
    part: Part, limit: int, start: int, *, source: _Source, folder: Path, vocab: Vocab, ranges: Ranges, spill: Path
) -> tuple[Path | Ids, dict[str, Spelling]]:
    """Write the ids of the first tokens of a part, of which ``start`` is the number of the first, to where they belong;
    of subwords, of which nobody knows yet how many come before, to a file of their own.

    Returns:
        That file, or the ids themselves where another machine has it; and what was read in each range of tokens.
    """
    read = {name: Spelling() for name in ranges}
    kept, merges, here = _kept(folder, part), vocab.merges, folder == spill.parent
    path = spill if here and not merges else kept.with_suffix(".ids")
    with path.open("r+b" if path == spill else "wb") as file:
        file.seek(start * vocab.id_type.itemsize if path == spill else 0)
        for piece in _pieces(part, limit, source=source, folder=folder):
            tokens, edges = merges.tokens(piece) if merges else (piece, None)
            ids = index(tokens, vocab)
            file.write(ids.data)
            for name, (first, stop) in ranges.items():
                inside = slice(max(first - start, 0), max(stop - start, 0))
                if edges is None:
                    read[name].add(piece[inside], ids[inside])
                else:
                    within = ids[slice(*edges[np.clip([inside.start, inside.stop], 0, len(piece))])]
                    read[name].count(len(within), int(vocab.characters.take(within).sum()))
            start += len(piece)
    kept.unlink()  # the ids take its place
    if here:
        return path, read
    sent = np.fromfile(path, vocab.id_type)
    path.unlink()
    return sent, read


def _append(written: Path | Ids, spill: Path) -> None:
    """Put the ids of a part behind those that come before them, where they are not there yet."""
    if isinstance(written, np.ndarray):
        with spill.open("ab") as file:
            file.write(written.data)
    elif written != spill:
        with written.open("rb") as ids, spill.open("ab") as file:
            shutil.copyfileobj(ids, file, 1 << 20)
        written.unlink()


def _ends(read: Mapping[str, Spelling]) -> Iterator[int]:
    """Where each split ends, in tokens."""
    return itertools.accumulate(read[name].tokens for name in SPLITS)


def _split(read: Spelling, stop: int) -> Split:
    return Split(stop - read.tokens, stop, read.characters, read.unknown, read.bits)


def _digest(path: Path) -> Future[str]:
    """A file's SHA-256, taken beside all that follows; where that fails, nothing waits for it."""
    digest: Future[str] = Future()

    def take() -> None:
        try:
            with path.open("rb") as file:
                digest.set_result(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            digest.set_exception(error)

    threading.Thread(target=take, daemon=True).start()
    return digest


def _check(total: int, ends: tuple[int, ...], config: TokenizeConfig, path: Path) -> None:
    if not total:
        if config.normalizer == "book" and path.stat().st_size:
            raise CorpusError(
                "nothing is left of the corpus: normalizer=book keeps the letters A-Z only, and it has none; "
                "set tokenize.normalizer=lower"
            )
        raise CorpusError("the corpus holds no text to learn from: choose another one")
    if not ends[0]:
        remedy = "set tokenize.level=char" if config.level == WORD.name else "use a longer text or a larger share"
        unit = "piece" if config.level == BPE.name else config.level
        raise CorpusError(
            f"the training split is empty: of the {total:,} {unit}s of this text a tokenize.train_share of "
            f"{config.train_share:g} takes none; {remedy}"
        )


def _report(splits: Mapping[str, Split], entries: int, characters: int, config: TokenizeConfig) -> None:
    kept = sum(split.characters for split in splits.values())
    if config.normalizer == "book" and not config.max_tokens and kept < characters / 2:
        logger.warning(
            "normalizer=book keeps the letters A-Z only, %.0f %% of this text: tokenize.normalizer=lower keeps all",
            100 * kept / characters,
        )
    worst = max(("valid", "test"), key=lambda name: splits[name].unknown_rate)
    if splits[worst].unknown_rate > MOSTLY_UNKNOWN:
        logger.warning(
            "%.0f %% of the %s split's %ss are unknown: %s",
            100 * splits[worst].unknown_rate,
            worst,
            LEVELS[config.level].noun,
            "where the text has few spaces, set tokenize.level=char; else lower tokenize.min_freq"
            if config.level == WORD.name
            else "lower tokenize.min_freq",
        )
    sizes = ", ".join(f"{name} {len(split):,} ({split.unknown:,} unknown)" for name, split in splits.items())
    logger.info("%s entries in the vocabulary; tokens: %s", f"{entries:,}", sizes)
