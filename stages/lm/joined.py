"""Texts that are written together while others join and leave, each of them what it is alone.

As in `stages.lm.abreast` many texts are columns of one product, and a token in doubt is computed again alone, from
where its text was last known to the bit. But they begin and end at any time, and what was said cannot be taken back:

1. A text whose prompt was read is known to the bit. It goes on alone where there are few, which is quicker, and else
   becomes a column. A column whose token is in doubt waits until its text was read again; the others go on meanwhile.
2. Columns are on trial first: their texts are written alone as well, and what is said is what that gives. Only then are
   tokens taken from columns. One text at a time, from the moment it joins, goes on being read alone, and its logits are
   compared every few tokens, without its column being put right: so drift is seen over as many tokens as it has grown.
3. Where drift, there or where a doubt was settled, is more than half of what is allowed for, more is allowed for from
   then on; and where that is not enough, all texts of this model go on alone, from where they were last known.

Then what was said stays. It was in no doubt under an allowance of which no text that was looked at had used up more than
half until a few tokens before. That this is so for all others is as sure as it is in `stages.lm.abreast`.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from data.errors import ConfigError
from data.tables.tokens import END_ID
from stages.lm import abreast, sampling
from stages.lm.telling import Telling

if TYPE_CHECKING:
    from stages.lm.layers import State, Vector
    from stages.lm.model import LanguageModel
    from stages.lm.predictor import Predictor

FEWEST = 4
"""With fewer texts each is written alone."""
_STEP = 0.01
"""Seconds that a step takes, and the time of one token more."""
_TURN = 0.001
"""Seconds that one text is read before it is another's turn."""
_TRIAL = 8192
"""Tokens for which columns are on trial."""

Beside = tuple[float | None, tuple[tuple[str, float], ...]]
_NOTHING: Beside = None, ()


class Seen(NamedTuple):
    """What a column says of the token that comes next: logits, and 1 more than the largest one's size."""

    logits: Vector
    unit: float


class Piece(NamedTuple):
    """What a token adds to a text."""

    text: str
    """May be empty, where a character is not complete, and is cut where a stop string begins."""
    logprob: float | None
    """The natural logarithm of what the model gives the token among all ids at temperature 1, right to 1e-4; minus
    infinity where the logits are not finite. None unless asked for."""
    likeliest: tuple[tuple[str, float], ...]
    """What the likeliest tokens would add, and theirs, best first; empty unless asked for."""


class _Known:
    """States that are known to the bit, and the ids to be read from there."""

    def __init__(self, states: list[State], unread: Sequence[int]) -> None:
        self.states, self.unread = states, deque(unread)

    def read(self, predictor: Predictor, until: float = math.inf) -> bool:
        """Read on until then, one id at least; whether all are read."""
        unread = self.unread
        while unread:
            predictor.advance(unread.popleft(), self.states)
            if perf_counter() >= until:
                break
        return not unread


class _Prompt(_Known):
    """What all texts share that have it.

    ``after`` is the token that it ends with.
    """

    def __init__(self, states: list[State], unread: Sequence[int], after: str) -> None:
        super().__init__(states, unread)
        self.after = after


class Writing:
    """One text that is being written."""

    def __init__(
        self, prompt: _Prompt, telling: Telling[Beside], how: abreast.How, seed: int, left: int, likeliest: int | None
    ) -> None:
        self.ended: Literal["stop", "length"] | None = None
        """None while it goes on; ``stop`` is a stop string, or the model's own end of a document."""
        self._prompt = prompt
        self._known: _Known = prompt
        self._telling, self._how, self._left, self._likeliest = telling, how, left, likeliest
        self._numbers = _numbers(seed) if how[0] else itertools.repeat(0.0)
        self._uniform = next(self._numbers)
        self._last = END_ID
        self._joined = False  # whether it is a column
        self._doubt: Seen | None = None

    def _choose(self, logits: Vector) -> int:
        """What is taken of logits that are exact."""
        return sampling.draw(logits, self._uniform, *self._how) if self._how[0] else int(logits.argmax())


class Joined:
    """Texts of one model.

    The last bits follow from the number of NumPy's threads: within `stages.lm.network.one_thread` a text is what
    `LanguageModel.stream` gives within it.

    Args:
        model: writes them.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model, self._predictor = model, model.predictor
        self._exact, self._exact_all = self._predictor.readout(model.first), self._predictor.readout()
        self._readout_columns = self._predictor.readout_columns()
        self._waiting = deque[Writing]()
        self._on = set[Writing]()
        self._prompts = WeakValueDictionary[str, _Prompt]()
        self._reading = deque[Writing]()  # a prompt, or once more what is in doubt
        self._alone = deque[Writing]()  # their next token comes of states known to the bit
        self._slots: list[Writing] = []  # whose columns these are
        self._columns = [tuple(array[:, :0] for array in state) for state in self._predictor.zero_state(1)]
        self._hows: tuple[npt.NDArray[Any], ...] = ()
        self._watched: Writing | None = None
        self._tried = 0
        self._drifts = [*abreast.DRIFTS]  # the first is allowed for; with none, there are no columns
        self._told: dict[Writing, list[Piece]] = {}

    def begin(
        self,
        prompt: str,
        length: int,
        temperature: float = 0.0,
        seed: int = 0,
        *,
        top_k: int = 0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        likeliest: int | None = None,
    ) -> Writing:
        """One text more. The text of its pieces is that of the tokens of `LanguageModel.stream`, whose arguments these
        are.

        With `abreast.COLUMNS` of them on, more wait, first come, first served. A prompt that several have is read once.

        Args:
            likeliest: how many of the likeliest tokens come with each token, and its logarithm; None is not even that.

        Raises:
            ConfigError: a value that does not fit.
        """
        sampling.chooser(0, temperature, 0, top_k, top_p)
        stops = sampling.stop_strings(stop)
        if likeliest is not None and likeliest < 0:
            raise ConfigError(f"likeliest must be 0 or more, not {likeliest}")
        shared = self._prompts.get(prompt)
        if shared is None:
            ids, after = self._model.begun(prompt)
            shared = self._prompts[prompt] = _Prompt(self._predictor.beginning(), ids, after)
        telling = Telling[Beside](self._model.kind, shared.after, stops)
        how = temperature, min(top_k, len(self._model.vocab)), top_p
        writing = Writing(shared, telling, how, seed, length, likeliest)
        self._waiting.append(writing)
        return writing

    def leave(self, writing: Writing) -> None:
        """No more of a text is computed; nothing if it has ended."""
        self._on.discard(writing)
        if writing in self._waiting:
            self._waiting.remove(writing)

    def step(self) -> list[tuple[Writing, list[Piece]]]:
        """A little work: of each text that gained some, what it gained. One that has ended comes a last time, perhaps
        with nothing. Reading takes as long as writing, or all the time where nothing can be written."""
        self._told = {}
        until = perf_counter() + _STEP
        with np.errstate(all="ignore"):  # a state that grew beyond bounds is bad text, not worth a warning
            while len(self):
                self._admit()
                began = perf_counter()
                written = self._write(until)
                now = perf_counter()
                self._read(min(until, now + now - began) if written else until)
                if perf_counter() >= until:
                    break
        return [*self._told.items()]

    def __len__(self) -> int:
        """Texts that are on, or wait."""
        return len(self._on) + len(self._waiting)

    def _admit(self) -> None:
        while self._waiting and len(self._on) < abreast.COLUMNS:
            writing = self._waiting.popleft()
            if writing._left > 0:
                self._on.add(writing)
                self._reading.append(writing)
            else:
                self._end(writing, "length")

    # --- from states known to the bit

    def _read(self, until: float) -> None:
        """Read what is in doubt, and prompts in turns; a text that was read goes on."""
        while self._reading:
            writing = self._reading.popleft()
            if writing in self._on:
                if writing._known.read(self._predictor, min(until, perf_counter() + _TURN)):
                    self._settle(writing)
                elif writing._joined:
                    self._reading.appendleft(writing)
                else:
                    self._reading.append(writing)
            if perf_counter() >= until:
                break

    def _settle(self, writing: Writing) -> None:
        """Let a text go on from what was read: its column is put right, or it is alone."""
        if writing._known is writing._prompt:
            writing._known = _Known([*writing._prompt.states], ())
        states, doubt, writing._doubt = [*writing._known.states], writing._doubt, None
        self._take_exactly(writing, doubt)
        if writing._joined and len(self._slots) >= FEWEST and self._drifts:
            abreast.put(states, self._columns, self._slots.index(writing))
            self._watch(writing)
        else:
            writing._joined = False
            self._alone.append(writing)

    def _take_exactly(self, writing: Writing, seen: Seen | None) -> None:
        """Take the next token of a text of which all is read; ``seen`` is what its column said."""
        logits = self._exact(writing._known.states)
        if seen:
            self._tried += 1
            apart = np.abs(logits - seen.logits).max()
            while self._drifts and not apart <= self._drifts[0] * seen.unit / 2:
                del self._drifts[0]
        wanted = writing._likeliest is not None
        all_logits = self._exact_all(writing._known.states) if wanted else None
        self._take(writing, writing._choose(logits) + self._model.first, all_logits)

    # --- a token of each

    def _write(self, until: float) -> bool:
        """Write a token of each text that can go on, of those that are alone as long as there is time; whether any."""
        self._arrange()
        written = any(writing._doubt is None for writing in self._slots)
        if written:
            self._write_columns()
        for _ in range(len(self._alone)):
            writing = self._alone.popleft()
            if writing not in self._on:
                continue
            writing._known.read(self._predictor)
            self._take_exactly(writing, None)
            self._alone.append(writing)
            written = True
            if perf_counter() >= until:
                break
        return written

    def _arrange(self) -> None:
        """Let columns go that are none any more, and texts that are alone become columns if there are enough."""
        if not self._drifts:
            for writing in self._slots:
                if writing._joined:
                    writing._joined = False
                    if writing._doubt is None:
                        self._reading.append(writing)
        going = [column for column, one in enumerate(self._slots) if one._joined and one in self._on]
        joining = [writing for writing in self._alone if writing in self._on]
        if not self._drifts or len(going) + len(joining) < FEWEST:
            joining = []
        if len(going) == len(self._slots) and not joining:
            return
        states = [writing._known.states for writing in joining]
        self._columns = [
            tuple(
                np.concatenate([array.take(going, 1), *(one[number][at][:, None] for one in states)], axis=1)
                for at, array in enumerate(state)
            )
            for number, state in enumerate(self._columns)
        ]
        self._slots = [*(self._slots[column] for column in going), *joining]
        for writing in joining:
            writing._joined = True
            self._watch(writing)
        if joining:
            self._alone.clear()
        # The likeliest token is what is drawn of one.
        hows = [writing._how if writing._how[0] else (1.0, 1, 1.0) for writing in self._slots]
        self._hows = tuple(np.array(values) for values in zip(*hows, strict=True))

    def _watch(self, writing: Writing) -> None:
        if self._watched is None or not (self._watched._joined and self._watched in self._on):
            self._watched = writing

    def _write_columns(self) -> None:
        slots, first = self._slots, self._model.first
        self._predictor.advance_columns(np.array([writing._last for writing in slots]), self._columns)
        all_logits = self._readout_columns(self._columns)
        logits = all_logits[:, first:]
        units = 1 + np.abs(logits).max(axis=1)
        drawn = []
        for column, writing in enumerate(slots):
            if writing._doubt is not None:
                continue
            watched = writing is self._watched and writing._left % abreast.LOOKED_AT == 0
            if watched or self._tried < _TRIAL:
                writing._known.read(self._predictor)
                self._take_exactly(writing, Seen(logits[column], units[column]))
            else:
                drawn.append(column)
        if not drawn or not self._drifts:
            return
        uniform = np.array([writing._uniform for writing in slots])
        taken, doubtful = abreast.draw(logits, uniform, *self._hows, self._drifts[0] * units)
        ids, doubts = (taken + first).tolist(), doubtful.tolist()
        for column in drawn:
            if doubts[column]:
                slots[column]._doubt = Seen(logits[column].copy(), units[column])
                self._reading.appendleft(slots[column])
            else:
                self._take(slots[column], ids[column], all_logits[column])

    def _take(self, writing: Writing, id_: int, all_logits: Vector | None) -> None:
        telling, tokens = writing._telling, self._model.vocab.tokens
        writing._left -= 1
        if id_ == END_ID and self._model.architecture.ends:
            self._tell(writing, telling.rest())
            self._end(writing, "stop")
            return
        beside = _NOTHING
        if writing._likeliest is not None and all_logits is not None:
            logs = _logarithms(all_logits)
            best = np.argsort(-logs, kind="stable")[: writing._likeliest].tolist()
            beside = logs.item(id_), tuple((telling.alone(tokens[one]), logs.item(one)) for one in best)
        self._tell(writing, telling.more(tokens[id_], beside))
        if not writing._left and not telling.stopped:
            self._tell(writing, telling.rest())
        if telling.stopped or not writing._left:
            self._end(writing, "stop" if telling.stopped else "length")
            return
        writing._uniform, writing._last = next(writing._numbers), id_
        writing._known.unread.append(id_)

    def _tell(self, writing: Writing, added: Iterable[tuple[str, Beside]]) -> None:
        self._told.setdefault(writing, []).extend(Piece(text, *beside) for text, beside in added)

    def _end(self, writing: Writing, how: Literal["stop", "length"]) -> None:
        writing.ended = how
        self._on.discard(writing)
        self._told.setdefault(writing, [])


def _numbers(seed: int) -> Iterator[float]:
    """What `stages.lm.sampling.chooser` draws, a little at a time."""
    drawn = np.random.default_rng(seed)
    return (number for _ in itertools.repeat(None) for number in drawn.random(abreast.SEGMENT).tolist())


def _logarithms(logits: Vector) -> npt.NDArray[np.float64]:
    """Of the probabilities."""
    logs = logits.astype(np.float64)
    logs -= logs.max()
    logs -= np.log(np.exp(logs).sum())
    return np.where(np.isnan(logs), -np.inf, logs)
