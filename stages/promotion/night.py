"""A night: the corpus is fetched again, looked at, trained on, and the new model becomes the champion if it is better.

    night = Night(store, config, when=…)              # the corpus as of tonight
    ended = night.run(walk)                           # what was decided, which is also kept beside the champions

The flow `retrain` and the command `rnnlm night` run the same one, and only show what comes of its steps.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from data.errors import ConfigError, CorpusError, Interrupted, RnnlmError, StoreError, TransientError
from data.moment import now
from data.store import champions, locks, naming, nights, reigns
from data.store.collect import KEPT_MODELS, collect
from stages.config import RunConfig
from stages.pipeline import begun, graph
from stages.promotion import guard, label, losing, origin
from stages.promotion.contender import Contender
from stages.promotion.judge import judge
from stages.report import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from data.store.artifact import Artifact
    from data.store.folder import Store
    from data.store.nights import NightRecord
    from stages.pipeline.run import Outcome, Walk
    from stages.promotion.judge import Verdict

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Step = Literal["guard", "judge", "settle"]

MODEL = champions.STAGE
"""The stage whose artifact is the model."""
TOKENS, CORPUS = "tokens.arrow", "corpus.txt"
"""Of all that a model was made from, the judge reads the artifacts nearest to it that hold these files. So it does not
matter which stages there are, nor whether they were the same when the champion was made."""


DECISIONS = 5
"""How often a night decides at most, where others promote models while it does."""


def corpus_stage() -> str:
    """The stage whose ``corpus.txt`` the tokens are made from: the last before training, if there are several."""
    return next(name for name in reversed(graph.order(MODEL)) if CORPUS in graph.files_read(name))


def plainly(step: Step, work: Callable[[], Result]) -> Result:
    """A step that nobody watches."""
    return work()


class Night:
    """One night of one champion.

    Args:
        store: where artifacts and champions lie.
        config: of each night; it has to name its corpus.
        when: when the night was to begin, UTC; one that is tried again keeps its moment, and with it the text that it
            has fetched, unless that was refused.
        name: of the champion.
        reference: a corpus, fetched once, on which no champion may lose; None for none.
        other_corpus: whether the corpus may be another one than the champion's.

    Raises:
        ConfigError: no corpus, or what cannot be a name.
    """

    def __init__(
        self,
        store: Store,
        config: RunConfig,
        *,
        when: datetime,
        name: str = naming.DEFAULT,
        reference: str | None = None,
        other_corpus: bool = False,
    ) -> None:
        if "corpus" not in config.download.model_fields_set:
            raise ConfigError(
                "download.corpus is not set, and a night has no corpus of its own: name one, with --corpus or in the "
                "deployment's config"
            )
        self.name = naming.check(name)
        self._store, self._config = store, label.tonight(config, when)
        self._reference, self._other_corpus = reference, other_corpus
        self._source = origin.source(config.download.corpus)
        self._reign: reigns.Reign | None = None
        self._made: list[Artifact] = []
        """What the champion was made from, itself first."""
        self._held: list[locks.Hold | None] = []
        """All of it, so that it stays, whatever becomes of the champion meanwhile."""
        self._differ: losing.Differences = {}
        self._before: list[NightRecord] = []
        """The nights of this name before this one."""
        self._artifacts: Mapping[str, Artifact] = {}
        """Stage → artifact, of tonight's walk."""

    def run(
        self,
        walk: Callable[[RunConfig], Walk],
        *,
        step: Callable[[Step, Callable[[], Any]], Any] = plainly,
        report: Callable[[Sequence[Outcome], Mapping[str, Any]], object] = lambda outcomes, verdict: None,
    ) -> NightRecord:
        """Go through the night; what was decided is also kept in the store. Where another one of this name is at it,
        that is all there is to say.

        Args:
            walk: begins a walk over the graph with a configuration.
            step: ``step(name, work)`` does the work of a step and gives what it gives.
            report: leaves a page of a run, given what became of its stages, and the verdict as JSON.

        Raises:
            RnnlmError: the night ended before anything was decided; that is kept, too, unless it was interrupted.
        """
        with self._store.alone(f"night-{self.name}") as alone:
            if not alone:
                called = champions.called(self.name)
                return self._record(
                    "unchanged", f"another night{called} is running: this one ends, and decides nothing"
                )
            try:
                ended = self._decided(walk, step, report)
            except Interrupted:
                raise
            except RnnlmError as error:
                unfit = isinstance(error, CorpusError) and not isinstance(error, TransientError)
                self._keep(self._record("refused" if unfit else "failed", str(error)))
                raise
            self._keep(ended)
            if ended.decision != "unchanged":
                self._collect()
        return ended

    def _decided(self, walk: Callable[[RunConfig], Walk], step: Any, report: Any) -> NightRecord:
        """Decide, and once more where another machine has promoted a model meanwhile: what is made is made."""
        for _ in range(DECISIONS - 1):
            with suppress(champions.OvertakenError):
                return self._decide(walk, step, report)
            logger.info("another model became the champion meanwhile; deciding again")
        return self._decide(walk, step, report)

    def _decide(self, walk: Callable[[RunConfig], Walk], step: Any, report: Any) -> NightRecord:
        self._reign = champions.current(self._store, self.name)
        self._made = origin.lineage(self._store, self._reign.model) if self._reign else []
        with suppress(FileNotFoundError):  # what is gone by now is named where it is read
            self._held = [locks.hold(one.folder) for one in self._made]
        self._differ = losing.differences(self._config, self._made)
        self._before = nights.read(self._store, self.name)
        fetched = label.not_refused(self._config.download.as_of, self._before)
        self._config = label.labelled(self._config, fetched)
        way = walk(self._config)
        self._artifacts = way.artifacts
        corpus = way.to(corpus_stage())
        champion = _contender(self._made) if self._made else None
        moved = self._moved(corpus)
        rule = self._config.promotion
        accepted = None if moved else champion
        logger.info("%s", step("guard", lambda: guard.check(corpus.folder, accepted, rule)))
        reference = walk(label.only(self._reference)).to(corpus_stage()).folder if self._reference else None
        way.to(graph.LAST)

        key = self._artifacts[MODEL].manifest.key
        losing_so = losing.why(self._differ, self._reign.model, self._before) if self._reign else ""
        if known := self._known(key):
            lost = bool(self._reign and champions.rejected(self._store, key, self._reign.model, self.name))
            reason = f"nothing has changed: {known}{losing_so if lost else ''}"
            logger.info("%s", reason)
            return self._record("unchanged", reason, lost=lost)
        candidate = _contender(self._artifacts[name] for name in reversed(graph.order(MODEL)))
        verdict: Verdict = step("judge", lambda: judge(candidate, champion, rule, reference, ground=not moved))
        decided = replace(verdict, reason=verdict.reason + moved)
        step("settle", lambda: self._settle(key, decided))
        told = decided if verdict.promoted else replace(decided, reason=decided.reason + losing_so)
        try:
            over = self._champion()
            report(way.outcomes, {**told.json(), "champion": over.model_dump() if over else None})
        except StoreError as error:
            logger.warning("%s", error)  # what was decided stands without a page
        logger.info("%s", told.reason)
        lost = bool(self._reign) and not verdict.promoted
        return self._record("promoted" if verdict.promoted else "rejected", told.reason, told, lost=lost)

    def _moved(self, corpus: Artifact) -> str:
        """What is to be said of a corpus that is another one than the champion's; empty where it is the same.

        Raises:
            CorpusError: it is, and nobody asked for it.
        """
        if self._reign is None:
            return ""
        theirs = self._reign.source or origin.recorded(self._made)
        text = next(one for one in self._made if CORPUS in one.manifest.outputs)
        if theirs is None or origin.same(self._source, theirs) or text.sha256(CORPUS) == corpus.sha256(CORPUS):
            return ""
        if self._other_corpus:
            return f"; it was made from {self._source}, and the champion from {theirs}"
        raise CorpusError(
            f"the champion{champions.called(self.name)} was made from {theirs}, and tonight's corpus is "
            f"{self._source}: name another champion with --name, or let this corpus take the other's place with "
            "--other-corpus (of a flow the parameters `name` and `other_corpus`)"
        )

    def _known(self, key: str) -> str:
        """What is to be said of a model that there is nothing to decide about; empty where there is."""
        if self._reign and self._reign.model == key:
            return f"the champion {key[:16]} stays"
        if withdrawal := champions.withdrawn(self._store, key, self.name):
            return f"{key[:16]} was withdrawn ({withdrawal.why}); `rnnlm promote` would bring it back"
        if self._reign and (rejection := champions.rejected(self._store, key, self._reign.model, self.name)):
            return f"{key[:16]} was compared with this champion before: {rejection.reason}"
        return ""

    def _settle(self, key: str, verdict: Verdict) -> None:
        """Promote the new model, or remember that it was compared with this champion and rejected.

        Raises:
            StoreError: another one became the champion meanwhile.
        """
        over = self._reign.model if self._reign else ""
        if verdict.promoted:
            champions.promote(
                self._store, key, verdict.reason, verdict.json(), over=over, source=self._source, name=self.name
            )
        elif over:
            champions.reject(self._store, key, over, verdict.reason, name=self.name)

    def _collect(self) -> None:
        """Remove what nobody needs, as `rnnlm gc --keep 10` does; what keeps it from that is no fault of this night."""
        store = self._store
        try:
            gone = collect(store, finished=begun.ended(store), newer=begun.newer(store), keep=KEPT_MODELS)
            logger.info("%d folders that nobody needs were removed", sum(not one.fault for one in gone))
        except StoreError as error:
            logger.warning("nothing was removed: %s", error)

    def _record(
        self, decision: nights.Decision, reason: str, verdict: Verdict | None = None, *, lost: bool = False
    ) -> NightRecord:
        corpus, model, last = (self._artifacts.get(name) for name in (corpus_stage(), MODEL, graph.LAST))
        return nights.NightRecord(
            when=now(),
            name=self.name,
            decision=decision,
            reason=reason,
            champion=self._champion(),
            candidate=nights.Model(key=model.manifest.key, page=self._page(last)) if model else None,
            tests=verdict.json()["tests"] if verdict else [],
            label=self._config.download.as_of,
            download=corpus.manifest.key if corpus else None,
            differs=self._differ,
            lost=lost,
        )

    def _champion(self) -> nights.Model | None:
        """The champion as it stood when the night began."""
        reign = self._reign
        pages = {one.candidate.key: one.candidate.page for one in self._before if one.candidate}
        return nights.Model(key=reign.model, since=reign.since, page=pages.get(reign.model)) if reign else None

    def _page(self, last: Artifact | None) -> str | None:
        """The report of a run, below the store."""
        name = f"reports/{last.manifest.key[:16]}.html" if last else ""
        return name if name and (self._store.root / name).is_file() else None

    def _keep(self, night: NightRecord) -> None:
        """Note the night, and tell of it on the page of all nights; its decision stands where that cannot be."""
        try:
            nights.add(self._store, night)
            kept.index(self._store)
        except StoreError as error:
            logger.warning("this night is not noted: %s", error)


def _contender(made: Iterable[Artifact]) -> Contender:
    """A model, which comes first, with what it was made from: of several with the same file, that nearest to it."""
    model, *before = made
    folders = {file: one.folder for one in reversed(before) for file in one.manifest.outputs}
    if lacking := {TOKENS, CORPUS} - folders.keys():
        raise StoreError(f"{model.folder} does not say from which {min(lacking)} it was made: train again")
    return Contender(model.folder, folders[TOKENS], folders[CORPUS])
