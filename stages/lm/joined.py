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

What was said until then stays. It was in no doubt under an allowance of which no text that was looked at had used up
more than half, the one that is watched not a few tokens before. That no other text had used up more than the whole is
as sure as it is in `stages.lm.abreast`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np

from data.errors import ConfigError
from stages.lm import abreast, sampling
from stages.lm.writing import Piece, Prompt, Seen, Writing

if TYPE_CHECKING:
    from stages.lm.layers import Vector
    from stages.lm.model import LanguageModel

__all__ = ["Joined", "Piece", "Writing"]

FEWEST = 8
"""With fewer texts each is written alone. With seven that is as quick, for networks of 160 to 512 units."""
_STEP = 0.01
"""Seconds that a step takes, and then what is begun."""
_TURN = 0.001
"""Seconds that a prompt is read before it is another's turn."""
_TRIAL = 8192
"""Tokens of columns that are compared with what they are alone before any is taken from a column."""


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
        self._prompts = WeakValueDictionary[str, Prompt]()
        self._reading = deque[Writing]()  # a prompt, or once more what is in doubt
        self._alone = deque[Writing]()  # their next token comes of states known to the bit
        self._slots: list[Writing] = []  # whose columns these are
        self._columns = [tuple(array[:, :0] for array in state) for state in self._predictor.zero_state(1)]
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
            shared = self._prompts[prompt] = Prompt(self._model, prompt)
        how = temperature, min(top_k, len(self._model.vocab)), top_p
        writing = Writing(self._model, shared, length, how, seed, stops, likeliest)
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
        until = perf_counter() + _STEP
        with np.errstate(all="ignore"):  # a state that grew beyond bounds is bad text, not worth a warning
            while len(self):
                self._admit()
                began = perf_counter()
                written = self._write(until)
                now = perf_counter()
                self._read(now + min(now - began, _STEP) if written else until)
                if perf_counter() >= until:
                    break
        told, self._told = self._told, {}
        return [*told.items()]

    def __len__(self) -> int:
        """Texts that are on, or wait."""
        return len(self._on) + len(self._waiting)

    def _admit(self) -> None:
        while self._waiting and len(self._on) < abreast.COLUMNS:
            writing = self._waiting.popleft()
            if writing.left > 0:
                self._on.add(writing)
                self._reading.append(writing)
            else:
                writing.ended = "length"
                self._tell(writing, [])

    # --- from states known to the bit

    def _read(self, until: float) -> None:
        """Read what is in doubt, and prompts in turns; a text that was read goes on."""
        while self._reading:
            writing = self._reading.popleft()
            if writing in self._on:
                if writing.known.read(self._predictor, min(until, perf_counter() + _TURN)):
                    self._settle(writing)
                elif writing.joined:
                    self._reading.appendleft(writing)
                else:
                    self._reading.append(writing)
            if perf_counter() >= until:
                break

    def _settle(self, writing: Writing) -> None:
        """Let a text go on from what was read: its column is put right, or it is alone."""
        writing.own()
        states, doubt, writing.doubt = [*writing.known.states], writing.doubt, None
        self._take_exactly(writing, doubt)
        if writing.joined and self._drifts:
            abreast.put(states, self._columns, self._slots.index(writing))
            self._watch(writing)
        else:
            writing.joined = False
            self._alone.append(writing)

    def _take_exactly(self, writing: Writing, seen: Seen | None) -> None:
        """Take the next token of a text of which all is read; ``seen`` is what its column said."""
        logits = self._exact(writing.known.states)
        if seen:
            self._tried += 1
            apart = np.abs(logits - seen.logits).max()
            while self._drifts and not apart <= self._drifts[0] * seen.unit / 2:
                del self._drifts[0]
        all_logits = logits if writing.likeliest is None else self._exact_all(writing.known.states)
        self._take(writing, writing.choose(logits) + self._model.first, all_logits)

    # --- a token of each

    def _write(self, until: float) -> bool:
        """Write a token of each text that can go on, of those that are alone as long as there is time; whether any."""
        self._arrange()
        written = any(writing.doubt is None for writing in self._slots)
        if written:
            self._write_columns()
        for _ in range(len(self._alone)):
            writing = self._alone.popleft()
            if writing not in self._on:
                continue
            writing.known.read(self._predictor)
            self._take_exactly(writing, None)
            self._alone.append(writing)
            written = True
            if perf_counter() >= until:
                break
        return written

    def _arrange(self) -> None:
        """Let columns go that are none any more, and texts that are alone become columns if there are enough."""
        if not self._drifts or len(self._on) < FEWEST:
            for writing in self._slots:
                if writing.joined and writing.doubt is None:
                    self._reading.append(writing)
                writing.joined = False
        going = [column for column, one in enumerate(self._slots) if one.joined and one in self._on]
        joining = [writing for writing in self._alone if writing in self._on]
        if not self._drifts or len(going) + len(joining) < FEWEST:
            joining = []
        if len(going) == len(self._slots) and not joining:
            return
        states = [writing.known.states for writing in joining]
        self._columns = [
            tuple(
                np.concatenate([array.take(going, 1), *(one[number][at][:, None] for one in states)], axis=1)
                for at, array in enumerate(state)
            )
            for number, state in enumerate(self._columns)
        ]
        self._slots = [*(self._slots[column] for column in going), *joining]
        for writing in joining:
            writing.joined = True
            self._watch(writing)
        if joining:
            self._alone.clear()
        # The likeliest token is what is drawn of one.
        hows = [writing.how if writing.how[0] else (1.0, 1, 1.0) for writing in self._slots]
        self._temperature, self._top_k, self._top_p = map(np.array, zip(*hows, strict=True) if hows else ([], [], []))

    def _watch(self, writing: Writing) -> None:
        if self._watched is None or not (self._watched.joined and self._watched in self._on):
            self._watched = writing

    def _write_columns(self) -> None:
        slots, first = self._slots, self._model.first
        self._predictor.advance_columns(np.array([writing.last for writing in slots]), self._columns)
        all_logits = self._readout_columns(self._columns)
        logits = all_logits[:, first:]
        units = 1 + np.abs(logits).max(axis=1)
        drawn = []
        for column, writing in enumerate(slots):
            if writing.doubt is not None:
                continue
            watched = writing is self._watched and writing.left % abreast.LOOKED_AT == 0
            if watched or self._tried < _TRIAL:
                writing.known.read(self._predictor)
                self._take_exactly(writing, Seen(logits[column], units[column]))
            else:
                drawn.append(column)
        if not drawn or not self._drifts:
            return
        uniform = np.array([writing.uniform for writing in slots])
        taken, doubtful = abreast.draw(
            logits, uniform, self._temperature, self._top_k, self._top_p, self._drifts[0] * units
        )
        ids, doubts = (taken + first).tolist(), doubtful.tolist()
        for column in drawn:
            if doubts[column]:
                slots[column].doubt = Seen(logits[column].copy(), units[column])
                self._reading.appendleft(slots[column])
            else:
                self._take(slots[column], ids[column], all_logits[column])

    def _take(self, writing: Writing, id_: int, all_logits: Vector) -> None:
        self._tell(writing, writing.take(id_, all_logits))

    def _tell(self, writing: Writing, pieces: list[Piece]) -> None:
        if pieces or writing.ended:
            self._told.setdefault(writing, []).extend(pieces)
        if writing.ended:
            self._on.discard(writing)
