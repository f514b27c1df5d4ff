"""A language model: text in, text out. A model's folder is all that it takes, and no engine that trains."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.corpus.level import LEVELS
from data.corpus.text import CHUNK, normalize, spellings
from data.tables.tokens import END_ID
from data.tables.vocab import UNKNOWN, Vocab
from stages.lm import abreast, ensemble, sampling, scoring, stored
from stages.lm.mixture import Mixture
from stages.lm.parameters import Architecture, together

if TYPE_CHECKING:
    from os import PathLike

    from data.corpus.text import LevelName, Normalizer
    from data.tables.tokens import Ids
    from stages.config import TrainConfig
    from stages.lm.layers import Vector
    from stages.lm.ngram import NGram
    from stages.lm.parameters import Parameters
    from stages.lm.predictor import Predictor
    from stages.lm.sampling import Token
    from stages.lm.scoring import Score

logger = logging.getLogger(__name__)

_NAMED = 8
"""Unknown tokens of a prompt that are named."""
_READ, _OPENING = 1000, 20
"""Tokens of a text that are looked through for its first words, and characters that these have at most."""


class LanguageModel:
    """What predicts tokens, their vocabulary, and how text becomes ids.

    ``predictor`` computes with the ids themselves: ``network``, which may be several, or a mixture that it is part of.

    Args:
        architecture: which model it is.
        weights: as `stages.lm.parameters` names them, of several networks as `stages.lm.parameters.together` does.
        vocab: row = id.
        level: `char`, `letter`, `word` or `bpe`.
        normalizer: what a text is normalised by.
        ngram: what stands beside the network, with ``shares`` of each as `stages.lm.mixture.Mixture` has them.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Parameters,
        vocab: Vocab,
        level: LevelName,
        normalizer: Normalizer,
        ngram: NGram | None = None,
        shares: Sequence[float] = (),
    ) -> None:
        self.architecture = architecture
        self.network = ensemble.made(architecture, weights)
        self.predictor = self.network if ngram is None else Mixture(self.network, ngram, shares)
        self.vocab = vocab
        self.level = level
        self.kind = LEVELS[level].of(vocab)
        """How a normalised text becomes tokens, and text again."""
        self.normalizer = normalizer
        self.first = 1 if len(vocab) > 1 else 0
        """Lower ids are read but never said."""
        self.quiet = False
        """Whether no warning names what the vocabulary lacks."""
        self.folder: Path | None = None
        """That it was loaded from."""
        self._warned = {UNKNOWN}

    @classmethod
    def load(cls, folder: str | PathLike[str], *, finite: bool = True) -> LanguageModel:
        """Read a model artifact: ``config.json``, ``model.safetensors``, ``vocab.arrow``, of subwords
        ``merges.arrow``, and of a mixture ``ngrams.arrow``. Where ``manifest.json`` lies beside them, they have to be
        what it names.

        Args:
            folder: of the artifact.
            finite: refuse weights that are not; whoever judges such a model reads it all the same.

        Raises:
            StoreError: a folder that holds no such model, a damaged one, or a newer version's (`FormatError`).
        """
        model = cls(*stored.read(Path(folder), finite=finite))
        model.folder = Path(folder)
        return model

    @classmethod
    def untrained(cls, config: TrainConfig, vocab: Vocab, level: LevelName, normalizer: Normalizer) -> LanguageModel:
        """The model that training would start from."""
        architecture = Architecture.of(config, len(vocab), ends=vocab.ends)
        drawn = [architecture.initial(config.initializer, config.seed + number) for number in range(config.networks)]
        return cls(architecture, together(drawn), vocab, level, normalizer)

    def held_out(self, training: Ids) -> Predictor:
        """What predicts the validation split without having seen it: a mixture with an n-gram of ``training`` alone,
        the ids of the training split, for the one that it has counts the validation split as well."""
        return self.predictor.counting(training) if isinstance(self.predictor, Mixture) else self.predictor

    # --- text out of it

    def sample(
        self,
        prefix: str,
        length: int,
        temperature: float = 0.0,
        seed: int = 0,
        *,
        top_k: int = 0,
        top_p: float = 1.0,
        stop: str | Sequence[str] = (),
    ) -> str:
        """The prompt and its continuation: what ``stream`` gives, joined. Arguments and errors are those of it."""
        tokens = self.stream(prefix, length, temperature, seed, top_k=top_k, top_p=top_p, stop=stop)
        return "".join([self.prompt(prefix), *[text for text, _ in tokens]])

    def samples(
        self,
        prefix: str,
        length: int,
        temperature: float,
        seeds: Sequence[int],
        *,
        top_k: int = 0,
        top_p: float = 1.0,
        stop: str | Sequence[str] = (),
    ) -> Iterator[str]:
        """What ``sample`` gives for each of several seeds, in their order, many at once (see `stages.lm.abreast`).

        Arguments and errors are those of ``stream``.
        """
        sampling.chooser(0, temperature, 0, top_k, top_p)
        stops = sampling.stop_strings(stop)
        prompt = self.split(prefix)
        ids, after, ends = self.ids(prompt), self.kind.after(prompt), self.architecture.ends
        begun, longest = self.kind.join(prompt), max((len(stop.encode()) for stop in stops), default=0)

        def ended(text: Ids) -> bool:
            if ends and END_ID in text[-abreast.SEGMENT :]:
                return True
            # What case a letter has, its whole text says.
            last = text if self.kind.spelt else text[-abreast.SEGMENT - longest :]
            return bool(stops) and self.kind.says((self.vocab.tokens[id_] for id_ in last.tolist()), stops, after)

        def written(some: Sequence[int]) -> Iterator[str]:
            texts = None
            if temperature and len(some) >= abreast.FEWEST:
                texts = abreast.continuations(
                    self.predictor, ids, length, some, (temperature, top_k, top_p), first=self.first, ended=ended
                )
            if texts is None:
                for seed in some:
                    yield self.sample(prefix, length, temperature, seed, top_k=top_k, top_p=top_p, stop=stops)
                return
            for text in texts:
                tokens = self._tokens(zip(text, itertools.repeat(None)), after=after)
                yield begun + "".join(piece for piece, _ in (sampling.until(tokens, stops) if stops else tokens))

        many = (seeds[at : at + abreast.COLUMNS] for at in range(0, len(seeds), abreast.COLUMNS))
        return itertools.chain.from_iterable(map(written, many))

    def stream(
        self,
        prefix: str,
        length: int,
        temperature: float = 0.0,
        seed: int = 0,
        *,
        top_k: int = 0,
        top_p: float = 1.0,
        stop: str | Sequence[str] = (),
        probabilities: bool = False,
    ) -> Iterator[Token]:
        """Up to ``length`` tokens that go on from the prompt, each as soon as it is drawn.

        What the vocabulary does not hold is read as ``<unk>``, with a warning that names it, and ``<unk>`` is never
        said unless the vocabulary holds nothing else. After an empty prompt the first token is the likeliest (or drawn)
        at the zero state. A token that may be part of a stop string waits until that is known. Of a model that knows
        where documents end, the prompt begins one, and the text ends where the end of one is drawn.

        The pieces of text, joined to ``prompt(prefix)``, are the whole text: a word comes with the space before it, and
        the last token is cut where a stop string begins. The probability is what the model gives the token among all,
        ``<unk>`` included, at temperature 1, whatever it was drawn by; 0 where the logits are not finite.

        Args:
            prefix: text to go on from.
            length: tokens to add at most.
            temperature: 0 takes the likeliest token each time, else one is drawn from softmax(logits / temperature).
            seed: of what is drawn.
            top_k: draw among so many of the likeliest tokens only, of equals those with the lower ids; 0 is all.
            top_p: then, of these, among the fewest of the likeliest that hold this fraction of the probability together
                (nucleus sampling: Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020).
            stop: the continuation ends right before the first place where one of these strings stands in it.
            probabilities: whether the tokens come with theirs; else it is None.

        Raises:
            ConfigError: a value that does not fit.
        """
        choose = sampling.chooser(length, temperature, seed, top_k, top_p)
        stops = sampling.stop_strings(stop)
        prompt, after = self.begun(prefix)
        ids = sampling.continuation(
            self.predictor, prompt, length, choose, first=self.first, probabilities=probabilities
        )
        tokens = self._tokens(ids, after=after)
        return sampling.until(tokens, stops) if stops else tokens

    def prompt(self, prefix: str) -> str:
        """A text as the model goes on from it: normalised, its accents composed or apart as in the text that the model
        was trained on, words with one space between them."""
        return self.kind.join(self.split(prefix))

    def split(self, prefix: str) -> list[str]:
        """The tokens of a prompt, its accents composed or apart as the vocabulary knows more of them, or longer."""
        ways = [self.kind.split(spelling) for spelling in spellings(prefix, self.normalizer, self.level)]
        return min(ways, key=lambda tokens: len(tokens) if self.kind.merged else self.vocab.ids(tokens).count(0))

    def ids(self, tokens: list[str]) -> list[int]:
        """The ids of a prompt's tokens; a warning names what the vocabulary lacks, once, unless the model is quiet."""
        ids = self.vocab.ids(tokens)
        if self.quiet:
            return ids
        unknown = dict.fromkeys(token for token, id_ in zip(tokens, ids, strict=True) if not id_)
        lacking = [token for token in unknown if token not in self._warned]
        if lacking:
            self._warned.update(lacking)
            named = ", ".join(map(repr, lacking[:_NAMED]))
            more = f" and {len(lacking) - _NAMED:,} more" if len(lacking) > _NAMED else ""
            logger.warning("the vocabulary lacks %s%s: read as %s", named, more, UNKNOWN)
        return ids

    def begun(self, prefix: str) -> tuple[list[int], str]:
        """The ids of a prompt, and what says how the next token is written (`data.corpus.level.Level.after`); a warning
        names what the vocabulary lacks."""
        prompt = self.split(prefix)
        return self.ids(prompt), self.kind.after(prompt)

    def opening(self, ids: Ids) -> str:
        """The first words of a text, given its ids: something to go on from in its own script. A word that the
        vocabulary lacks, or without a letter or digit, is none; an empty string where there is none."""
        words = self.vocab.decode(ids[:_READ].tolist(), self.kind).split()
        told = [word for word in words if UNKNOWN not in word and any(map(str.isalnum, word))]
        both = " ".join(told[:2])
        return both if len(both) <= _OPENING else told[0][:_OPENING]

    def _tokens(self, ids: Iterable[tuple[int, float | None]], *, after: str) -> Iterator[Token]:
        """What each id adds to a text, as ``added`` of `data.corpus.level.Level` has it; as far as the end of a
        document."""
        tokens = self.vocab.tokens
        if self.architecture.ends:
            ids = itertools.takewhile(lambda drawn: drawn[0] != END_ID, ids)
        return self.kind.added(((tokens[id_], probability) for id_, probability in ids), after=after)

    # --- what it makes of a text

    def score(
        self, text: str | Iterable[str], losses: Callable[[Iterator[Ids]], Iterable[Vector]] | None = None
    ) -> Score:
        """Measure a text, normalised as for training, as one document: the state is carried from its first token,
        which is not predicted, to its last, and what it would cost to end there is not counted.

        Args:
            text: in one piece, or in pieces cut anywhere.
            losses: from a text's ids, in pieces, to the loss of each but the first, nats; by default what this model
                makes of it, and with `stages.scoring.adapting` what it makes of it as it learns from what it has read.

        Raises:
            ConfigError: fewer than two tokens, so that nothing is predicted.
            CorpusError: a text for words that has none to speak of.
        """
        losses = losses or partial(scoring.carried, self.predictor)
        return scoring.score(self._read(text), losses, self.kind, self.normalizer)

    def log_probabilities(self, text: str | Iterable[str]) -> Iterator[tuple[str, float]]:
        """Each token of a text but the first, as ``score`` reads it, and its log-probability, nats.

        Of a token that the vocabulary lacks it is that of ``<unk>``; a subword stands as what it adds to the text.
        """
        return scoring.log_probabilities(self._read(text), self.predictor, self.kind)

    def _read(self, text: str | Iterable[str]) -> Iterator[tuple[list[str], Ids]]:
        """Tokens and ids of a text a piece at a time."""
        chunks = (text[at : at + CHUNK] for at in range(0, len(text), CHUNK)) if isinstance(text, str) else text
        for piece in self.kind.tokens(normalize(chunks, self.normalizer, self.level)):
            yield piece, np.array(self.vocab.ids(piece), self.vocab.id_type)
