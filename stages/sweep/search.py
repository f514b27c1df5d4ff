"""Many trials of one pipeline: a grid or random draws of settings, bad ones stopped early, one table and one picture.

Trials are stopped by successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and
Hyperparameter Optimization", AISTATS 2016): all train for a first part of their epochs, the better share goes on. What
goes on continues its own training, so that a trial that reaches its last epoch is what it had been without a sweep.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data.errors import Interrupted, RnnlmError, StoreError, TrainingError
from data.moment import now
from data.store import fingerprint
from data.store.artifact import Artifact, Manifest, Output
from data.store.folder import Store
from data.tables.history import read as read_history
from data.tables.tokens import IndexTable
from stages.config import RunConfig, StageConfig
from stages.lm import metrics
from stages.report import charts, svg
from stages.training import schedule

if TYPE_CHECKING:
    from data.progress import Progress
    from stages.sweep.worker import Answer, Train

logger = logging.getLogger(__name__)

STAGE = "sweeps"
"""What a store files sweeps under."""


@dataclass
class Trial:
    """A configuration of the space, and how far it has come."""

    config: RunConfig
    values: dict[str, Any]
    """What was varied: field → value."""
    tokens: str = ""
    """The key of the artifact of `tokenize` that it is trained on."""
    rung: int = 0
    """How many times it was trained further."""
    model: str = ""
    """Its last model's key."""
    curve: list[float] = field(default_factory=list)
    """Bits per character of the validation split, by epoch."""
    bits: float = math.inf
    """Of the last model's."""
    perplexity: float = math.inf
    seconds: float = 0.0
    """Of training, whenever that was."""
    ran: bool = False
    """Whether any of it was trained by this sweep."""
    state: str = "finished"
    """Or `stopped`, or `failed`."""
    reason: str = "trained to the end"

    def part(self, numerator: int, denominator: int) -> RunConfig:
        """The configuration that trains for such a part of the epochs what the whole would begin with."""
        train = self.config.train
        epochs = math.ceil(train.epochs * numerator / denominator)
        if epochs == train.epochs:
            return self.config
        shorter = {"epochs": epochs, "decay_epochs": schedule.horizon(train) or train.decay_epochs}
        return self.config.model_copy(update={"train": train.model_copy(update=shorter)})

    def fail(self, sentence: str) -> None:
        self.state, self.reason = "failed", sentence
        self.bits = self.perplexity = math.inf

    def json(self) -> dict[str, Any]:
        measured = math.isfinite(self.bits)
        return {
            "values": self.values,
            "state": self.state,
            "reason": self.reason,
            "bits_per_character": self.bits if measured else None,
            "perplexity": self.perplexity if measured else None,
            "epochs": len(self.curve),
            "valid_bits": [bits if math.isfinite(bits) else None for bits in self.curve],
            "seconds": round(self.seconds, 3),
            "model": self.model or None,
        }


# --- the search


def prepare(trials: Sequence[Trial], tokenized: Callable[[RunConfig], Artifact]) -> None:
    """Give the trials their tokens, made once for all that share them.

    Raises:
        RnnlmError: none of them can be trained, for this reason.
    """
    for name in trials[0].values:
        if not name.startswith("train.") and name != "tokenize.level":
            logger.warning("%s changes the text that trials are measured on: their figures may not compare", name)
    shared: dict[tuple[StageConfig, StageConfig], list[Trial]] = {}
    for trial in trials:
        shared.setdefault((trial.config.download, trial.config.tokenize), []).append(trial)
    for group in shared.values():
        try:
            tokens = tokenized(group[0].config)
            table = IndexTable.open(tokens.folder / "tokens.arrow")
        except (Interrupted, StoreError):
            raise
        except RnnlmError as error:
            for trial in group:
                trial.fail(str(error))
            continue
        valid = len(table.split("valid"))
        for trial in group:
            trial.tokens = tokens.manifest.key
            if valid <= trial.config.train.num_steps:
                trial.fail(
                    f"a sweep compares trials on the validation split, which has {valid:,} tokens: set tokenize.valid_"
                    f"share so that there are more than train.num_steps, {trial.config.train.num_steps:,}"
                )
    if all(trial.state == "failed" for trial in trials):
        raise RnnlmError(trials[0].reason)


def rungs(trials: int, epochs: int, keep: float) -> list[int]:
    """How many trials train in each rung: the share ``keep`` of those before, but not fewer than two.

    A trial's epochs at the end of a rung are to all its epochs as the trials of the last rung are to those of this one:
    all rungs would cost the same from a fresh start. No rung is shorter than an epoch.
    """
    sizes = [trials]
    while (fewer := max(2, math.ceil(sizes[-1] * keep))) < sizes[-1] and epochs * fewer >= trials:
        sizes.append(fewer)
    return sizes


def search(trials: Sequence[Trial], keep: float, store: Store, train: Train, progress: Progress) -> list[Trial]:
    """Train all that is worth it; the trials, the best first.

    Those that trained further come first, for what was stopped was worse when it was; then the lower figure counts.

    Raises:
        Interrupted: what was trained is kept.
        TrainingError: none of them could be trained.
    """
    going = [trial for trial in trials if trial.state != "failed"]
    sizes = rungs(len(going), min(trial.config.train.epochs for trial in going), keep)
    done = 0
    for rung, size in enumerate(sizes, 1):
        going = going[:size]
        asked = [(trial.part(sizes[-1], size), trial.tokens) for trial in going]
        for position, answer in train(asked):
            _take(going[position], answer, store, rung)
            done += 1
            best = min((trial.bits for trial in trials if trial.rung == rung), default=math.inf)
            figures = f"rung {rung} of {len(sizes)}, {size} trials"
            progress(
                done, sum(sizes), f"{figures} · best {best:.4g} bits per character" if best < math.inf else figures
            )
        going = sorted((trial for trial in going if trial.state != "failed"), key=lambda trial: trial.bits)
        if rung < len(sizes):
            for place, trial in enumerate(going[sizes[rung] :], sizes[rung] + 1):
                trial.state, trial.reason = "stopped", f"stopped: number {place} of {size}"
    for trial in going:
        if len(trial.curve) < trial.config.train.epochs:
            trial.reason = "ended by its patience"
    if not going:
        raise TrainingError(f"none of the trials could be trained; the first: {trials[0].reason}")
    return sorted(trials, key=lambda trial: (trial.state == "failed", -trial.rung, trial.bits))


def _take(trial: Trial, answer: Answer, store: Store, rung: int) -> None:
    """Note what became of a trial's training."""
    if answer.error:
        trial.fail(answer.sentence)
        return
    model = store.find("train", answer.key)
    if model is None:
        raise StoreError(f"the model {answer.key[:16]} has gone from {store.root}: run again")
    losses = _valid_losses(model)
    split = IndexTable.open(store.folder("tokenize", trial.tokens) / "tokens.arrow").splits["valid"]
    trial.curve = [
        metrics.summarize(loss, len(split) - 1, split.characters)["bits_per_character"]
        if math.isfinite(loss)
        else math.inf
        for loss in losses
    ]
    kept = schedule.best_epoch(losses) - 1 if trial.config.train.patience else -1
    trial.bits, trial.perplexity = trial.curve[kept], metrics.perplexity(losses[kept])
    trial.rung, trial.model, trial.ran = rung, answer.key, trial.ran or answer.ran
    trial.seconds += model.manifest.timing["seconds"]
    if not math.isfinite(trial.bits):
        trial.fail("its validation loss is no longer finite: try a smaller train.learning_rate")


def _valid_losses(model: Artifact) -> list[float]:
    """Nats per token, by epoch."""
    losses = read_history(model.folder / "history.arrow")["valid_loss"]
    return [math.nan if loss is None else loss for loss in losses]


# --- what comes out


def rows(ranked: Sequence[Trial]) -> list[dict[str, str]]:
    """The trials in their order, each as heading → cell."""
    return [
        {
            "rank": str(rank),
            **{name: _shown(value) for name, value in trial.values.items()},
            "bits per character": _figure(trial.bits),
            "perplexity": _figure(trial.perplexity),
            "epochs": f"{len(trial.curve):,} of {trial.config.train.epochs:,}",
            "seconds": f"{trial.seconds:.1f}",
            "model": trial.model[:16] or "–",
            "how it ended": trial.reason,
        }
        for rank, trial in enumerate(ranked, 1)
    ]


def table(ranked: Sequence[Trial]) -> str:
    """The same as a markdown table that can be read as it stands."""
    told = rows(ranked)
    columns = []
    for name in told[0]:
        column = [name, *(row[name].replace("|", "\\|") for row in told)]
        width = max(map(len, column))
        if name == "how it ended":
            heading, *cells = (cell.ljust(width) for cell in column)
            columns.append([heading, "-" * width, *cells])
        else:
            heading, *cells = (cell.rjust(width) for cell in column)
            columns.append([heading, "-" * (width - 1) + ":", *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*columns, strict=True))


def settings(trial: Trial) -> str:
    """What sets a trial apart, as `--set` takes it."""
    return " ".join(f"{name}={_shown(value)}" for name, value in trial.values.items())


def results(ranked: Sequence[Trial]) -> list[dict[str, Any]]:
    """The trials in their order as JSON."""
    return [{"rank": rank, **trial.json()} for rank, trial in enumerate(ranked, 1)]


def draw(ranked: Sequence[Trial]) -> str:
    """The validation split's bits per character by epoch as SVG, a line for each trial; the legend names each kind."""
    best = ranked[0]
    columns, named = [(f"the best: {settings(best)}", "best", best.curve)], set()
    for trial in filter(lambda trial: any(map(math.isfinite, trial.curve)), ranked[1:]):
        columns.append(("" if trial.state in named else trial.state, trial.state, trial.curve))
        named.add(trial.state)
    return svg.picture(charts.trials(columns))


def publish(ranked: Sequence[Trial], keep: float, evaluated: Artifact, store: Store) -> Artifact:
    """Keep ``table.md``, ``trials.json`` and ``curves.svg`` in the store, in the place of the same sweep's before.

    Args:
        ranked: the trials, the best first.
        keep: the share of them that went on from each rung.
        evaluated: the best one's artifact of `evaluate`.
        store: where the trials are.
    """
    asked = sorted(fingerprint.digest(trial.config.model_dump(mode="json")) for trial in ranked)
    components = {"stage": STAGE, "trials": asked, "keep": keep}
    key = fingerprint.digest(components)
    with store.building(STAGE, key) as folder:
        (folder / "table.md").write_text(table(ranked), encoding="utf-8")
        content = json.dumps(results(ranked), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "trials.json").write_text(f"{content}\n", encoding="utf-8")
        (folder / "curves.svg").write_text(draw(ranked), encoding="utf-8")
        outputs = {
            path.name: Output(bytes=path.stat().st_size, sha256=fingerprint.file_digest(path))
            for path in sorted(folder.iterdir())
        }
        parents = {"train": ranked[0].model, "evaluate": evaluated.manifest.key}
        manifest = Manifest(
            stage=STAGE,
            key=key,
            components=components,
            outputs=outputs,
            config={"keep": keep},
            parents=parents,
            created=now(),
        )
        return store.publish(folder, manifest)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _figure(value: float) -> str:
    return f"{value:#.5g}" if math.isfinite(value) else "–"
