"""A trained language model that needs NumPy only: text out of it, and what it makes of given text."""

from __future__ import annotations

import contextvars
import itertools
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from data.corpus.text import CHUNK, normalize, normalize_prefix, words
from data.errors import ConfigError, StoreError
from data.tables.vocab import UNKNOWN, Vocab
from stages.lm import metrics, side_by_side
from stages.lm.layers import Layer, State, Vector
from stages.lm.parameters import GATES, Architecture

if TYPE_CHECKING:
    from pathlib import Path

    from data.corpus.text import LevelName, Normalizer
    from data.tables.tokens import Ids
    from stages.config import TrainConfig
    from stages.lm.parameters import Parameters

Token: TypeAlias = tuple[str, float | None]
"""What a token adds to the text, and its probability. Plain, for making one takes part of the time it takes to draw."""

logger = logging.getLogger(__name__)

_NUMBERS = 1 << 22
"""Logits, or gates, held at once while a text is measured."""
_ROWS = 4096
"""Time steps, or windows, at most that are measured at once."""
_NAMED = 8
"""Unknown tokens of a prompt that are named."""


@dataclass(frozen=True)
class Score:
    """What a model makes of a text; the names are those of ``metrics.json``."""

    loss: float
    """Mean negative log-likelihood of all tokens but the first, nats."""
    perplexity: float
    bits_per_character: float
    """Of the normalised text, words with a space behind each."""
    tokens: int
    """How many were predicted: all but the first."""
    unknown_rate: float
    """Share of all tokens that the vocabulary lacks; what is measured of them is how likely ``<unk>`` was."""


class LanguageModel:
    """Weights, vocabulary, and how text becomes ids.

    Args:
        architecture: which model it is.
        weights: as `stages.lm.parameters` names them.
        vocab: row = id.
        level: `char` or `word`.
        normalizer: what a text is normalised by.
    """

    def __init__(
        self, architecture: Architecture, weights: Parameters, vocab: Vocab, level: LevelName, normalizer: Normalizer
    ) -> None:
        self.architecture = architecture
        self.vocab = vocab
        self.level = level
        self.normalizer = normalizer
        self._layers = [Layer(architecture, weights, layer) for layer in range(architecture.layers)]
        dense = weights["embedding.weight" if architecture.tie_weights else "dense.weight"]
        self._dense = np.ascontiguousarray(dense), weights["dense.bias"]
        self._warned = {UNKNOWN}

    @classmethod
    def load(cls, folder: Path) -> LanguageModel:
        """Read a model artifact: ``config.json``, ``model.safetensors``, ``vocab.arrow``.

        Raises:
            StoreError: a folder that holds no such model, or a damaged one.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = folder / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            architecture = Architecture.parse(config)
            level, normalizer = config["level"], config["normalizer"]
            if level not in ("char", "word") or normalizer not in ("book", "lower", "none"):
                raise ValueError("its level or its normalizer is unknown")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} does not describe a model ({_said(error)}): train again") from None
        path = folder / "model.safetensors"
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{path} holds no weights that can be read ({_said(error)}): train again") from None
        expected = architecture.shapes()
        found = {name: array.shape for name, array in weights.items() if array.dtype == np.float32}
        if found != expected:
            wrong = sorted(set(found.items()) ^ set(expected.items()))[0][0]
            raise StoreError(f"{path} does not fit the model in config.json (see {wrong}): train again")
        vocab = Vocab.read(folder / "vocab.arrow")
        if len(vocab) != architecture.vocab_size:
            sizes = f"{len(vocab):,} tokens and the model {architecture.vocab_size:,}"
            raise StoreError(f"{folder / 'vocab.arrow'} has {sizes}: train again")
        return cls(architecture, weights, vocab, level, normalizer)

    @classmethod
    def untrained(cls, config: TrainConfig, vocab: Vocab, level: LevelName, normalizer: Normalizer) -> LanguageModel:
        """The model that training would start from."""
        architecture = Architecture.of(config, len(vocab))
        return cls(architecture, architecture.initial(config.initializer, config.seed), vocab, level, normalizer)

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
        at the zero state. A token that may be part of a stop string waits until that is known.

        The pieces of text, joined to ``prompt(prefix)``, are the whole text: a word comes with the space before it, and
        the last token is cut where a stop string begins. The probability is what the model gives the token among all,
        ``<unk>`` included, at temperature 1, whatever it was drawn by; 0 where the logits are not finite.

        Args:
            prefix: text to go on from.
            length: tokens to add at most.
            temperature: 0 takes the likeliest token each time, else one is drawn from softmax(logits / temperature).
            seed: of what is drawn.
            top_k: draw among so many of the likeliest tokens only, of equals those with the lower ids; 0 is all.
            top_p: then, of these, among the fewest of the likeliest that have this share of the probability together
                (nucleus sampling: Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020).
            stop: the continuation ends right before the first place where one of these strings stands in it.
            probabilities: whether the tokens come with theirs; else it is None.

        Raises:
            ConfigError: a value that does not fit.
        """
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if not temperature >= 0:
            raise ConfigError(f"temperature must be 0 or more, not {temperature}")
        if top_k < 0:
            raise ConfigError(f"top_k must be 1 or more, or 0 for all tokens, not {top_k}")
        if not 0 < top_p <= 1:
            raise ConfigError(f"top_p must be above 0 and at most 1, not {top_p}")
        if "" in stops:
            raise ConfigError("a stop string must hold at least one character: every text would end at once")
        shares = np.random.default_rng(seed).random(length) if temperature else None

        def choose(logits: Vector, number: int) -> int:
            if shares is None:
                return int(logits.argmax())
            return _draw(logits, temperature, shares[number], top_k, top_p)

        prompt = self.prompt(prefix)
        tokens = self._continue(self._ids(prompt), length, choose, probabilities)
        if self.level == "word":
            tokens = _spaced(tokens, after=prompt)
        return _until(tokens, stops) if stops else tokens

    def prompt(self, prefix: str) -> str:
        """A text as the model goes on from it: normalised, words with one space between them."""
        text = normalize_prefix(prefix, self.normalizer)
        return " ".join(text.split()) if self.level == "word" else text

    def _ids(self, prompt: str) -> list[int]:
        """The ids of a prompt; a warning names what the vocabulary lacks, once."""
        tokens = prompt.split() if self.level == "word" else list(prompt)
        ids = self.vocab.ids(tokens)
        unknown = dict.fromkeys(token for token, id_ in zip(tokens, ids, strict=True) if not id_)
        lacking = [token for token in unknown if token not in self._warned]
        if lacking:
            self._warned.update(lacking)
            named = ", ".join(map(repr, lacking[:_NAMED]))
            more = f" and {len(lacking) - _NAMED:,} more" if len(lacking) > _NAMED else ""
            logger.warning("the vocabulary lacks %s%s: read as %s", named, more, UNKNOWN)
        return ids

    def _continue(
        self, ids: Iterable[int], length: int, choose: Callable[[Vector, int], int], probabilities: bool
    ) -> Iterator[Token]:
        """Tokens that ``choose`` picks by the logits of all but ``<unk>`` and how many were picked before."""
        tokens = self.vocab.tokens
        first = 1 if len(tokens) > 1 else 0
        weight, bias = (array[first:] for array in self._dense)
        states = self.zero_state()

        def following(last: int | None, number: int) -> int:
            if last is not None:
                self._advance(last, states)
            logits = weight.dot(states[-1][0])
            logits += bias
            return choose(logits, number) + first

        # A state that grew beyond bounds is bad text, not worth a warning for every token. In a context of its own,
        # for what np.errstate sets in a generator its caller has as well.
        quietly = contextvars.copy_context()
        quietly.run(np.seterr, all="ignore")
        last = None
        for id_ in ids:
            if last is not None:
                quietly.run(self._advance, last, states)
            last = id_
        for number in range(length):
            last = quietly.run(following, last, number)
            yield tokens[last], quietly.run(self._probability, last, states) if probabilities else None

    def _probability(self, id_: int, states: list[State]) -> float:
        """Of a token among all, at temperature 1; 0 where the logits are not finite."""
        weight, bias = self._dense
        likelihoods = (weight.dot(states[-1][0]) + bias).astype(np.float64)
        likelihoods -= likelihoods.max()
        np.exp(likelihoods, out=likelihoods)
        probability = float(likelihoods[id_] / likelihoods.sum())
        return 0.0 if math.isnan(probability) else probability

    def _advance(self, id_: int, states: list[State]) -> None:
        """Feed one token to every layer."""
        inputs: Any = id_
        for number, layer in enumerate(self._layers):
            states[number] = state = layer.step(layer.project(inputs), states[number])
            inputs = state[0]

    # --- what it makes of a text

    def score(
        self, text: str | Iterable[str], losses: Callable[[Iterator[Ids]], Iterable[Vector]] | None = None
    ) -> Score:
        """Measure a text, normalised as for training; the state is carried from its first token to its last.

        Args:
            text: in one piece, or in pieces cut anywhere.
            losses: from a text's ids, in pieces, to the loss of each but the first, nats; by default what these weights
                make of it.

        Raises:
            ConfigError: fewer than two tokens, so that nothing is predicted.
            CorpusError: a text for words that has none to speak of.
        """
        tokens, unknown, characters = 0, 0, 0

        def counted() -> Iterator[Ids]:
            nonlocal tokens, unknown, characters
            for piece, ids in self._read(text):
                tokens += len(ids)
                unknown += len(ids) - int(np.count_nonzero(ids))
                characters += sum(map(len, piece)) + (len(piece) if self.level == "word" else 0)
                yield ids

        total = sum(float(chunk.sum(dtype=np.float64)) for chunk in (losses or self._carried)(counted()))
        if tokens < 2:
            what = "words" if self.level == "word" else "characters"
            raise ConfigError(
                f"the text is too short: normalised ({self.normalizer}) it has {tokens} {what}, and the first one is "
                "not predicted; give one of two at least"
            )
        figures: dict[str, Any] = metrics.summarize(total / (tokens - 1), tokens - 1, characters)
        return Score(**figures, unknown_rate=unknown / tokens)

    def log_probabilities(self, text: str | Iterable[str]) -> Iterator[tuple[str, float]]:
        """Each token of a text but the first, as ``score`` reads it, and its log-probability, nats.

        Of a token that the vocabulary lacks it is that of ``<unk>``.
        """
        pieces, ids = itertools.tee(self._read(text))
        for (piece, _), losses in zip(pieces, self._carried(ids for _, ids in ids), strict=True):
            yield from zip(piece[len(piece) - len(losses) :], (-losses).tolist(), strict=True)

    def losses(self, ids: npt.NDArray[Any], states: list[State] | None = None) -> Iterator[Vector]:
        """The negative log-likelihood of each token but the first, nats, in chunks.

        Args:
            ids: integers of shape (tokens,).
            states: where the first token is read, and, once all is measured, where the last one is to be read: with it
                ``ids[:n]`` and then ``ids[n - 1:]`` give what ``ids`` gives. None is ``zero_state()``.
        """
        states = self.zero_state() if states is None else states
        done, left = 0, len(ids) - 1
        while left > 0:
            steps = min(left // side_by_side.COLUMNS, side_by_side.LONGEST)
            tokens = (
                steps * side_by_side.COLUMNS if steps >= side_by_side.SHORTEST else min(left, self._rows(len(self.vocab)))
            )
            inputs, targets = ids[done : done + tokens], ids[done + 1 : done + tokens + 1]
            with np.errstate(all="ignore"):
                if steps >= side_by_side.SHORTEST:
                    shape = side_by_side.COLUMNS, steps
                    losses = side_by_side.losses(
                        self._layers, self._nats, inputs.reshape(shape), targets.reshape(shape), states
                    )
                else:
                    outputs: Any = inputs
                    for number, layer in enumerate(self._layers):
                        outputs, states[number] = layer.run(layer.project(outputs), states[number])
                    losses = self._nats(outputs, targets)
            yield losses
            done, left = done + tokens, left - tokens

    def loss(self, ids: npt.NDArray[Any], progress: Callable[[int], None] | None = None) -> float:
        """The mean of ``losses``, nats per token; ``progress`` is told how many tokens are done."""
        return _mean(self.losses(ids), progress)

    def windowed_loss(self, ids: npt.NDArray[Any], window: int, progress: Callable[[int], None] | None = None) -> float:
        """The mean loss of all tokens but the first, nats, where the state is zero again every ``window`` tokens.

        Window k reads ``ids[k * window : (k + 1) * window]`` and predicts what stands one token further, so that each
        target counts once; the last window may be shorter. Many windows are computed side by side.

        Args:
            ids: integers of shape (tokens,).
            window: tokens.
            progress: told how many tokens are done.
        """
        return _mean(self._windowed_losses(ids, window), progress)

    def zero_state(self, *columns: int) -> list[State]:
        """Where a text begins: the state of each layer, (hidden,) or (hidden, columns)."""
        return [layer.zero_state(*columns) for layer in self._layers]

    def _windowed_losses(self, ids: npt.NDArray[Any], window: int) -> Iterator[Vector]:
        """Windows are columns; all of a step's inputs stand ``window`` tokens apart."""
        gates = GATES[self.architecture.cell] * self.architecture.hidden_size
        span = self._rows(max(len(self.vocab), gates)) * window
        for start in range(0, len(ids) - 1, span):
            part = ids[start : start + span + 1]
            states: list[State] | None = None
            for step in range(min(window, len(part) - 1)):
                inputs, targets = part[step:-1:window], part[step + 1 :: window]
                with np.errstate(all="ignore"):
                    states = states or self.zero_state(len(inputs))
                    outputs: Any = inputs
                    for number, layer in enumerate(self._layers):
                        # The last window may have ended.
                        state = tuple(array[:, : len(inputs)] for array in states[number])
                        states[number] = layer.step(layer.project(outputs).T, state)
                        outputs = states[number][0].T
                    losses = self._nats(outputs, targets)
                yield losses

    def _nats(self, outputs: Vector, targets: npt.NDArray[Any]) -> Vector:
        """The loss of each target; outputs of the last layer (rows, hidden), targets (rows,)."""
        weight, bias = self._dense
        logits = outputs @ weight.T
        logits += bias
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(targets)), targets]
        losses: Vector = np.log(np.exp(logits, out=logits).sum(axis=1)) - chosen
        return losses

    def _read(self, text: str | Iterable[str]) -> Iterator[tuple[list[str], Ids]]:
        """Tokens and ids of a text a piece at a time."""
        chunks = (text[at : at + CHUNK] for at in range(0, len(text), CHUNK)) if isinstance(text, str) else text
        normalized = normalize(chunks, self.normalizer, self.level)
        pieces = (piece.to_pylist() for piece in words(normalized)) if self.level == "word" else map(list, normalized)
        for piece in pieces:
            yield piece, np.array(self.vocab.ids(piece), self.vocab.id_type)

    def _carried(self, text: Iterable[Ids]) -> Iterator[Vector]:
        """The losses of each piece of a text; the text's first token has none."""
        states, before = self.zero_state(), np.empty(0, self.vocab.id_type)
        for ids in text:
            joined = np.concatenate((before, ids))
            yield np.concatenate([np.empty(0, np.float32), *self.losses(joined, states)])
            before = joined[-1:]

    def _rows(self, numbers: int) -> int:
        """How many rows of so many numbers are computed at once."""
        return max(1, min(_ROWS, _NUMBERS // numbers))


def _draw(logits: Vector, temperature: float, share: float, top_k: int, top_p: float) -> int:
    """The token, of those that are drawn among, at which the cumulated probability passes ``share``."""
    # In double precision, so that a very small temperature is not zero.
    likelihoods = logits.astype(np.float64)
    likelihoods -= likelihoods[likelihoods.argmax()]
    likelihoods /= temperature
    np.exp(likelihoods, out=likelihoods)
    if not 0 < top_k < len(logits) and top_p == 1:
        return _passed(likelihoods, share)
    order = np.argsort(-logits, kind="stable")[: top_k or None]
    shares = likelihoods[order].cumsum()
    kept = order[: int(shares.searchsorted(top_p * shares[-1])) + 1]
    kept.sort()
    return int(kept[_passed(likelihoods[kept], share)])


def _passed(likelihoods: npt.NDArray[np.float64], share: float) -> int:
    cumulated = likelihoods.cumsum()
    return min(int(cumulated.searchsorted(share * cumulated[-1], side="right")), len(cumulated) - 1)


def _spaced(tokens: Iterator[Token], after: str) -> Iterator[Token]:
    """Words with a space before each, but for one that begins the text."""
    space = " " if after else ""
    for text, probability in tokens:
        yield space + text, probability
        space = " "


def _until(tokens: Iterator[Token], stops: Sequence[str]) -> Iterator[Token]:
    """The tokens before the first stop string, the last one cut; what may be the beginning of one waits."""

    def first(text: str) -> int:
        return min((text.index(stop) for stop in stops if stop in text), default=len(text))

    waiting: list[Token] = []
    for token in tokens:
        waiting.append(token)
        text = "".join(text for text, _ in waiting)
        found = first(text)
        begun = next((at for at in range(len(text)) if any(stop.startswith(text[at:]) for stop in stops)), len(text))
        if found < len(text) and found <= begun:
            break
        while waiting and len(waiting[0][0]) <= begun:
            begun -= len(waiting[0][0])
            yield waiting.pop(0)
    left = first("".join(text for text, _ in waiting))
    for text, probability in waiting:
        if left > 0:
            yield text[:left], probability
        left -= len(text)


def _mean(chunks: Iterator[Vector], progress: Callable[[int], None] | None) -> float:
    total, tokens = 0.0, 0
    for chunk in chunks:
        total += float(chunk.sum(dtype=np.float64))
        tokens += len(chunk)
        if progress:
            progress(tokens)
    return total / tokens if tokens else math.nan


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return str(error) or type(error).__name__
