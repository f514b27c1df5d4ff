"""The search for the best of many trials: all are trained a little, the better ones further.

Trials are stopped by successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and
Hyperparameter Optimization", AISTATS 2016): all train for the first of their epochs, and those that did better go on.
What goes on continues its own training, so that a trial that reaches its last epoch is what it had been without a
sweep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING

from data.errors import ConfigError, Interrupted, RnnlmError, StoreError, TrainingError
from data.store import mirror
from data.tables import history
from data.tables.tokens import IndexTable
from stages.config import DownloadConfig
from stages.lm import metrics
from stages.pipeline import graph
from stages.sweep import worker
from stages.sweep.space import settings
from stages.sweep.worker import Job
from stages.training import schedule

if TYPE_CHECKING:
    from data.progress import Progress
    from data.store.artifact import Artifact
    from data.store.folder import Store
    from stages.config import RunConfig, StageConfig
    from stages.pipeline.run import Walk
    from stages.sweep.pool import Workers
    from stages.sweep.trial import Trial
    from stages.sweep.worker import Answer


def prepare(trials: Sequence[Trial], walk: Callable[[RunConfig], Walk]) -> None:
    """Make what the trials are trained on, once for all that share it.

    A trial whose text cannot be had, or is too short to measure it on, fails here.

    Args:
        trials: none of them trained yet.
        walk: a walk over the stages of one configuration, which has not begun.

    Raises:
        ConfigError: trials that would be measured on different texts.
        RnnlmError: none of them can be trained, for this reason.
    """
    before = graph.order("train")[:-1]
    alike: dict[tuple[StageConfig | None, ...], list[Trial]] = {}
    for trial in trials:
        alike.setdefault(tuple(dict(trial.config).get(name) for name in before), []).append(trial)
    texts: list[tuple[Trial, object]] = []
    for group in alike.values():
        try:
            upstream = walk(group[0].config).upstream("train")
            table = IndexTable.open(upstream[_tokens()].folder / "tokens.arrow")
        except (Interrupted, StoreError):
            raise
        except RnnlmError as error:
            for trial in group:
                trial.fail(str(error))
            continue
        valid = table.splits["valid"]
        # Whatever the vocabulary has, these say which characters a model is measured on.
        begins = table.splits["train"].characters
        text = table.corpus_sha256, table.normalizer, table.level, begins, valid.characters
        texts.append((group[0], text))
        for trial in group:
            trial.upstream = {stage: artifact.manifest.key for stage, artifact in upstream.items()}
            trial.valid = valid
            if len(valid) < 2:
                trial.fail(
                    f"trials are compared on the validation split, which has {len(valid):,} of the two tokens that a "
                    "figure takes: set a larger tokenize.valid_share"
                )
    _refuse_different(texts)
    if all(trial.state == "failed" for trial in trials):
        raise RnnlmError(trials[0].reason)


def _refuse_different(texts: Sequence[tuple[Trial, object]]) -> None:
    """Refuse to compare trials of different validation texts; name what two of them differ in, the fewest fields."""
    before = graph.order("train")[:-1]

    def apart(one: Trial, other: Trial) -> list[str]:
        """The fields that may have made the difference."""
        names = (name for name in one.values if name.partition(".")[0] in before)
        return [name for name in names if one.values[name] != other.values[name]]

    pairs = [
        (one, other, apart(one, other)) for (one, text), (other, second) in combinations(texts, 2) if text != second
    ]
    if pairs:
        one, other, names = min(pairs, key=lambda pair: len(pair[2]))
        first, second = (settings({name: trial.values[name] for name in names}) for trial in (one, other))
        raise ConfigError(
            f"{first} and {second} make different validation texts, and figures of different texts do not compare: "
            f"leave {' and '.join(names)} out of what varies, and set it to one value after the other"
        )


def _tokens() -> str:
    """The stage whose index table `train` reads."""
    return graph.STAGES["train"].inputs["tokens"].stage


@dataclass(frozen=True)
class Rung:
    """One round of training, after which the worse trials stop."""

    trials: int
    """How many train in it."""
    fraction: Fraction
    """Of all its epochs, what each of them has trained by the end of it."""


def rungs(trials: int, epochs: int, keep: float) -> list[Rung]:
    """How many trials train how far.

    8 trials of 40 epochs, of which ``keep=0.5`` goes on: all 8 train 10 epochs, the best 4 of them go on to 20, and the
    best 2 of these to 40. That is ``[Rung(8, 1/4), Rung(4, 1/2), Rung(2, 1)]``.

    Each rung has ``keep`` of the trials of the one before, rounded up, but not fewer than two. Trials times epochs is
    the same for all rungs (8 · 10 = 4 · 20 = 2 · 40). There are no more rungs than leave the first one an epoch.

    Args:
        trials: how many there are.
        epochs: of the trial that has the fewest.
        keep: from 0 to 1, which is a single rung.
    """
    sizes = [trials]
    while (fewer := max(2, math.ceil(sizes[-1] * keep))) < sizes[-1] and epochs * fewer >= trials:
        sizes.append(fewer)
    return [Rung(size, Fraction(sizes[-1], size)) for size in sizes]


def search(trials: Sequence[Trial], keep: float, store: Store, workers: Workers, progress: Progress) -> list[Trial]:
    """Train all that is worth it; the trials, the best first.

    Those that trained further come first, for what was stopped was worse when it was; then the lower figure counts. It
    is that of the whole validation split: of those that finished, what `evaluate` says of it.

    Args:
        trials: as `prepare` leaves them.
        keep: how many go on, see `rungs`.
        store: where models are found and published.
        workers: what trains.
        progress: is told of each training that is done.

    Raises:
        Interrupted: what was trained is kept.
        TrainingError: none of them could be trained.
    """
    going = [trial for trial in trials if trial.state != "failed"]
    ladder = rungs(len(going), min(trial.config.train.epochs for trial in going), keep)
    done, total = 0, sum(rung.trials for rung in ladder)
    for number, rung in enumerate(ladder, 1):
        for position, answer in workers([_job(trial, rung, store, last=number == len(ladder)) for trial in going]):
            _note(going[position], answer, store, number)
            done += 1
            best = min((trial.bits for trial in trials if trial.rung == number), default=math.inf)
            figures = f"rung {number} of {len(ladder)}, {rung.trials} trials"
            progress(done, total, f"{figures} · best {best:.4g} bits per character" if best < math.inf else figures)
        going = sorted((trial for trial in going if trial.state != "failed"), key=lambda trial: trial.bits)
        if not going:
            raise TrainingError(f"none of the trials could be trained; the first: {trials[0].reason}")
        go_on = ladder[number].trials if number < len(ladder) else len(going)
        for place, trial in enumerate(going[go_on:], go_on + 1):
            trial.state, trial.reason = "stopped", f"stopped: number {place} of {rung.trials}"
        going = going[:go_on]
    for trial in going:
        if len(trial.curve) < trial.config.train.epochs:
            trial.reason = "ended by its patience"
    return sorted(trials, key=lambda trial: (trial.state == "failed", -trial.rung, trial.bits))


def _job(trial: Trial, rung: Rung, store: Store, *, last: bool) -> Job:
    """The training of a trial in a rung; after the last one whoever has trained it measures it, too."""
    config = trial.first_epochs(math.ceil(trial.config.train.epochs * rung.fraction))
    # It is on a command line, and the text is there: what lets somebody have that is nobody's business.
    config = config.model_copy(update={"download": DownloadConfig()})
    remote = store.remote.address if store.remote else ""
    asked = config.model_dump_json(), trial.upstream, str(store.root), worker.code(config.train), remote
    return Job(*asked, measured=last)


def _note(trial: Trial, answer: Answer, store: Store, rung: int) -> None:
    """Note what became of a trial's training in a rung, by the figures that its history has."""
    if answer.error:
        trial.fail(answer.sentence)
        return
    model = _found("train", answer.key, store)
    losses = [math.nan if loss is None else loss for loss in history.read(model.folder / "history.arrow")["valid_loss"]]
    trial.curve = [_bits(trial, loss) for loss in losses]
    kept = schedule.best_epoch(losses) - 1 if trial.config.train.patience else -1
    loss = losses[kept] if answer.loss is None else answer.loss  # the history's is that of whole minibatches
    trial.bits, trial.perplexity = _bits(trial, loss), metrics.perplexity(loss)
    trial.rung, trial.model, trial.ran = rung, answer.key, trial.ran or answer.ran
    trial.seconds += model.manifest.timing["seconds"]
    if not math.isfinite(trial.bits):
        trial.fail("its validation loss is no longer finite: try a smaller train.learning_rate")


def _bits(trial: Trial, loss: float) -> float:
    """Bits per character at this loss over the validation split; infinite where the loss is not finite."""
    valid = trial.valid
    assert valid is not None
    figures = metrics.summarize(loss, len(valid) - 1, valid.characters, valid.spelling)
    return figures["bits_per_character"] if math.isfinite(loss) else math.inf


def _found(stage: str, key: str, store: Store) -> Artifact:
    artifact = store.find(stage, key) or mirror.bring(store, stage, key)
    if artifact is None:
        raise StoreError(f"the artifact {key[:16]} of {stage} has gone from {store.root}: run again")
    return artifact
