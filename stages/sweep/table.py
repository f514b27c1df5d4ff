"""What comes out of a sweep: its trials as a table, as JSON and as a picture, and the artifact that keeps these."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data.moment import now
from data.shown import line
from data.store import fingerprint
from data.store.artifact import Artifact
from data.store.manifest import Manifest, Output
from stages.report import charts, svg
from stages.sweep.space import settings, shown

if TYPE_CHECKING:
    from data.store.folder import Store
    from stages.sweep.trial import Trial

STAGE = "sweeps"
"""What a store files sweeps under."""


def rows(ranked: Sequence[Trial]) -> list[dict[str, str]]:
    """A table of the trials in their order: a row for each, heading → cell."""
    return [
        {
            "rank": str(rank),
            **{name: shown(value) for name, value in trial.values.items()},
            "bits per character": significant(trial.bits),
            "unknown": f"{trial.valid.unknown_rate:.2%}" if trial.valid else "–",
            "perplexity": significant(trial.perplexity),
            "epochs": f"{len(trial.curve):,} of {trial.config.train.epochs:,}",
            "seconds": f"{trial.seconds:.1f}",
            "model": trial.model[:16] or "–",
            "how it ended": trial.reason,
        }
        for rank, trial in enumerate(ranked, 1)
    ]


def markdown(lines: Sequence[Mapping[str, str]]) -> str:
    """Rows as a Markdown table that can be read as it stands; the last column is prose."""
    *_, prose = lines[0]
    columns = []
    for name in lines[0]:
        column = [name, *(re.sub(r"[|<]", r"\\\g<0>", line(row[name])) for row in lines)]
        width = max(map(len, column))
        if name == prose:
            heading, *cells = (cell.ljust(width) for cell in column)
            columns.append([heading, "-" * width, *cells])
        else:
            heading, *cells = (cell.rjust(width) for cell in column)
            columns.append([heading, "-" * (width - 1) + ":", *cells])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in zip(*columns, strict=True))


def results(ranked: Sequence[Trial]) -> list[dict[str, Any]]:
    """The trials in their order as JSON."""
    return [{"rank": rank, **trial.json()} for rank, trial in enumerate(ranked, 1)]


def draw(ranked: Sequence[Trial]) -> str:
    """The validation split's bits per character by epoch as SVG, a line for each trial; the legend names each kind."""
    best = ranked[0]
    columns, named = [(f"the best: {settings(best.values)}", "best", best.curve)], set()
    for trial in filter(lambda trial: any(map(math.isfinite, trial.curve)), ranked[1:]):
        columns.append(("" if trial.state in named else trial.state, trial.state, trial.curve))
        named.add(trial.state)
    return svg.picture(charts.trials(columns))


def publish(ranked: Sequence[Trial], keep: float, evaluated: Artifact, store: Store) -> Artifact:
    """Keep ``table.md``, ``trials.json`` and ``curves.svg`` in the store, in the place of the same sweep's before.

    Args:
        ranked: the trials, the best first.
        keep: how many went on from each rung, see `stages.sweep.search.rungs`.
        evaluated: the best one's artifact of the last stage.
        store: where the trials are.
    """
    asked = sorted(fingerprint.digest(trial.config.model_dump(mode="json")) for trial in ranked)
    components = {"stage": STAGE, "trials": asked, "keep": keep}
    key = fingerprint.digest(components)
    with store.building(STAGE, key) as folder:
        (folder / "table.md").write_text(markdown(rows(ranked)), encoding="utf-8")
        content = json.dumps(results(ranked), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "trials.json").write_text(f"{content}\n", encoding="utf-8")
        (folder / "curves.svg").write_text(draw(ranked), encoding="utf-8")
        outputs = {
            path.name: Output(bytes=path.stat().st_size, sha256=fingerprint.file_digest(path))
            for path in sorted(folder.iterdir())
        }
        parents = {"train": ranked[0].model, evaluated.manifest.stage: evaluated.manifest.key}
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


def significant(value: float) -> str:
    """Five significant digits, which tell close trials apart; a dash where nothing was measured."""
    return f"{value:#.5g}" if math.isfinite(value) else "–"
