"""From text to ids: the vocabulary and the index table of a corpus, streamed, whatever its size.

The text is read once, and kept as pieces: these are counted, as far as the vocabulary is fitted on them, and looked up.
It is read in parts, a large text by several processes; what happens to a part is in `stages.indexing.part`. A piece is
an array of code points (characters) or of words, cut anywhere between tokens. For subwords the words are the pieces of
`data.corpus.subwords`, from the counts of which the merges are learnt that cut them into tokens.

Of many documents none stands in two splits, and behind each stands a token that ends it (`stages.indexing.documents`).
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import shutil
import sys
import threading
from concurrent.futures import Future
from fractions import Fraction
from functools import partial
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from data.corpus import bpe, text
from data.corpus.letters import SHIFTS
from data.corpus.level import BPE, LETTER, LEVELS, WORD
from data.corpus.parts import cut, passes
from data.errors import CorpusError
from data.tables.borders import DOCUMENTS
from data.tables.counts import merge
from data.tables.documents import Documents
from data.tables.merges import Merges
from data.tables.tokens import LONGEST, SPLITS, IndexTable, Split
from data.tables.vocab import Vocab
from stages.indexing import documents
from stages.indexing.part import Kept, Source, counted, indexed, keep
from stages.indexing.whole import Whole
from stages.lm.spelling import Spelling

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from data.corpus.parts import Pass
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
    spread: Callable[[Path], AbstractContextManager[Pass]] | None = None,
) -> None:
    """Write ``out/vocab.arrow`` and ``out/tokens.arrow`` for the text in ``corpus/corpus.txt``; of subwords also
    ``out/merges.arrow``, and of documents ``out/documents.arrow``.

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
    source = Source(path, config.level, text.normalizer(config.normalizer, nfc=config.nfc, line_ends=config.line_ends))
    order = None
    if (table := corpus / DOCUMENTS).exists():
        order = documents.arrange(Documents.read(table), config, source)
    elif config.split in ("content", "order") or config.near_duplicates == "drop":
        logger.warning("the corpus is one document: tokenize.split and tokenize.near_duplicates say nothing of it")
    divided = order is not None and order.splits is not None
    fit_on_all, most = config.fit_vocab_on == "all", config.max_tokens or sys.maxsize
    digest, parts = _digest(path), order.parts if order else cut(path)
    with (
        TemporaryDirectory(dir=out) as aside,
        passes(parts, 6 if divided else 3, progress, Path(aside), spread) as over,
    ):
        if order and divided:
            order = documents.compared(order, over, path, leave_out=config.near_duplicates == "drop")
            parts = order.parts
        kept = list[Kept]()
        for one in over(partial(keep, source=source), parts, repeat(sys.maxsize if order or fit_on_all else most)):
            kept.append(one)
            if not order and not fit_on_all and sum(part.tokens for part in kept) >= most:
                break
        whole = Whole(kept, order)
        total = min(whole.tokens, most)
        ends = whole.ends(order.splits) if order and order.splits else bounds(total, config)
        _check(total, ends, config, path)
        fitted = sys.maxsize if fit_on_all else ends[0]
        counts = merge(over(partial(counted, source=source), parts, whole.before(fitted)))
        vocab = _vocabulary(counts, config, whole.ended(fitted) if order and config.end_tokens else None, progress)
        ranges = dict(zip(SPLITS, itertools.pairwise((0, *ends)), strict=True))
        if ends[0] > LONGEST:
            ranges["part"] = ends[0] - LONGEST, ends[0]
        read = {name: Spelling() for name in ranges}
        spill, lengths = Path(aside, "ids"), [np.empty(0, np.int64)]
        spill.touch()
        index = partial(indexed, source=source, vocab=vocab, ranges=ranges, spill=spill)
        for written in over(index, parts, whole.before(total), *whole.columns):
            _append(written.ids, spill)
            lengths.append(written.documents)
            for name, found in written.read.items():
                read[name].extend(found)
        splits = {name: _split(read[name], stop) for name, stop in zip(SPLITS, _ends(read), strict=True)}
        last = _split(read["part"], splits["train"].stop) if "part" in read else None
        ids = np.memmap(spill, vocab.id_type, "r")
        kinds = config.level, source.normalizer, digest.result()
        IndexTable(ids, splits, *kinds, len(vocab), ends=vocab.ends, part=last).write(out / "tokens.arrow")
    vocab.write(out / "vocab.arrow")
    _report(splits, len(vocab), whole.characters, config)
    if order:
        borders = whole.borders(np.concatenate(lengths), splits)
        borders.write(out / DOCUMENTS)
        documents.report(borders.found)


def bounds(total: int, config: TokenizeConfig) -> tuple[int, int, int]:
    """Where the training, the validation and the test split of ``total`` tokens end.

    The fractions are taken as the decimals that were written, so that 90 % of ten tokens are nine.
    """
    train, valid = (Fraction(str(fraction)) for fraction in (config.train_share, config.valid_share))
    valid_stop = int(total * (train + valid)) if config.test_share else total
    train_stop = int(total * train) if config.valid_share else valid_stop
    return train_stop, valid_stop, total


def _vocabulary(counts: Counter[str], config: TokenizeConfig, ends: int | None, progress: Progress) -> Vocab:
    if config.level == BPE.name:
        progress(2, 3, LEARNING)  # of the passes
        # All rows but that of <unk>, and of what ends a document.
        size = config.vocab_size - (1 if ends is None else 2)
        return Vocab.merged(counts, Merges(bpe.learn(counts, size, config.min_freq)), ends)
    always = SHIFTS if config.level == LETTER.name else ()
    vocab = Vocab.build(counts, config.min_freq, ends, always=always)
    if len(vocab) == len(always) + (1 if ends is None else 2):
        raise CorpusError(f"every token is seen less than {config.min_freq:,} times: lower tokenize.min_freq")
    return vocab


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
