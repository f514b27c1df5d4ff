"""What a night decides: whether a corpus is fit to train on, and which model is the champion afterwards.

    night = Night(store)                              # the champion as it stands when the night begins
    walk = Walk(…)                                    # of the configuration that `tonight` gives
    walk.to(corpus_stage())
    night.check(walk.artifacts, largest_loss)         # or the night is over before anything is trained
    walk.to(graph.LAST)
    if not night.known(walk.artifacts):               # or there is nothing to decide
        verdict = night.judge(walk.artifacts)
        night.settle(walk.artifacts, verdict)
        night.collect()

Whoever runs nights, as the flow `retrain` does, goes through these steps and only shows what comes of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.errors import StoreError
from data.store import champions
from data.store.collect import collect
from stages.config import PromotionConfig
from stages.pipeline import graph
from stages.promotion import guard
from stages.promotion.contender import Contender
from stages.promotion.judge import judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from data.store.artifact import Artifact
    from data.store.collect import Removal
    from data.store.folder import Store
    from stages.config import RunConfig
    from stages.promotion.judge import Verdict

    Artifacts = Mapping[str, Artifact]
    """Stage → artifact, of a walk."""

MODEL = champions.STAGE
"""The stage whose artifact is the model."""
TOKENS, CORPUS = "tokens.arrow", "corpus.txt"
"""Of all that a model was made from, the judge reads the artifacts nearest to it that hold these files. So it does not
matter which stages there are, nor whether they were the same when the champion was made."""


def tonight(config: RunConfig, night: datetime) -> RunConfig:
    """The same configuration with the corpus as of this night, unless it names another label.

    Args:
        config: of each night.
        night: when it was to begin, UTC; a run that is tried again keeps its night.
    """
    if config.download.as_of:
        return config
    label = night.strftime("%Y-%m-%dT%H:%M:%SZ")
    return config.model_copy(update={"download": config.download.model_copy(update={"as_of": label})})


def corpus_stage() -> str:
    """The stage whose ``corpus.txt`` the tokens are made from: the last before training, if there are several."""
    return next(name for name in reversed(graph.order(MODEL)) if CORPUS in graph.files_read(name))


class Night:
    """One night over a store: the champion as it stands when the night begins, and what is decided about a new model.

    Raises:
        StoreError: the champion, or what it was made from, is gone or damaged: nobody could say what is better, so that
            is for a person to decide.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reign = champions.current(store)
        self._champion = _contender(lineage(store, self._reign.model)) if self._reign else None

    def check(self, artifacts: Artifacts, largest_loss: float) -> None:
        """Refuse a corpus that must not reach training.

        Args:
            artifacts: of a walk that went to `corpus_stage`, or further.
            largest_loss: the fraction of its characters that a corpus may lose against the champion's.

        Raises:
            CorpusError: one sentence with the figures.
        """
        accepted = self._champion.corpus if self._champion else None
        guard.check(artifacts[corpus_stage()].folder, accepted, largest_loss=largest_loss)

    def known(self, artifacts: Artifacts) -> str:
        """What is to be said of a model that there is nothing to decide about; empty where there is."""
        key = _key(artifacts)
        if self._reign and self._reign.model == key:
            return f"the champion {key[:16]} stays"
        if withdrawal := champions.withdrawn(self._store, key):
            return f"{key[:16]} was withdrawn ({withdrawal.why}); `rnnlm promote` would bring it back"
        if self._reign and (rejection := champions.rejected(self._store, key, self._reign.model)):
            return f"{key[:16]} was compared with this champion before: {rejection.reason}"
        return ""

    def judge(self, artifacts: Artifacts, rule: PromotionConfig | None = None) -> Verdict:
        """Compare the new model with the champion."""
        candidate = _contender(artifacts[name] for name in reversed(graph.order(MODEL)))
        return judge(candidate, self._champion, rule or PromotionConfig())

    def settle(self, artifacts: Artifacts, verdict: Verdict) -> None:
        """Promote the new model, or remember that it was compared with this champion and rejected.

        Raises:
            StoreError: another one became the champion meanwhile.
        """
        key, over = _key(artifacts), self._reign.model if self._reign else None
        if verdict.promoted:
            champions.promote(self._store, key, verdict.reason, verdict.json(), over=over)
        elif over:
            champions.reject(self._store, key, over, verdict.reason)

    def collect(self) -> list[Removal]:
        """Remove what nobody needs, as `rnnlm gc` does, and return it."""
        return collect(self._store, pinned=champions.pinned(self._store))


def lineage(store: Store, key: str) -> list[Artifact]:
    """A champion and all that it was made from, as the manifests have it: the model first, the corpus last.

    Raises:
        StoreError: some of it is gone or damaged.
    """
    found: list[Artifact] = []
    named = [(MODEL, key)]
    for name, of in named:  # which grows as manifests are read
        artifact = store.find(name, of)
        damage = store.damage(artifact) if artifact else "it is gone"
        if artifact is None or damage:
            raise StoreError(
                f"nothing can be compared with the champion {key[:16]}, for its {name} artifact cannot be used "
                f"({damage}): `rnnlm rollback` goes back to the one before"
            )
        found.append(artifact)
        named += [parent for parent in artifact.manifest.parents.items() if parent not in named]
    return found


def _contender(made: Iterable[Artifact]) -> Contender:
    """A model, which comes first, with what it was made from: of several with the same file, that nearest to it."""
    model, *before = made
    folders = {file: one.folder for one in reversed(before) for file in one.manifest.outputs}
    return Contender(model.folder, folders[TOKENS], folders[CORPUS])


def _key(artifacts: Artifacts) -> str:
    return artifacts[MODEL].manifest.key
