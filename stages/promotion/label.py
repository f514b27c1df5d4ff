"""Which text a night fetches: its corpus under a label, that of the moment, and no text twice that was refused."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from stages.config import DownloadConfig, RunConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from data.store.nights import NightRecord


def tonight(config: RunConfig, night: datetime) -> RunConfig:
    """The same configuration with the corpus as of this night, unless it names another label.

    Args:
        config: of each night.
        night: when it was to begin, UTC; a run that is tried again keeps its night.
    """
    return config if config.download.as_of else labelled(config, night.strftime("%Y-%m-%dT%H:%M:%SZ"))


def labelled(config: RunConfig, label: str) -> RunConfig:
    """The same configuration with the corpus as of a label."""
    return config.model_copy(update={"download": config.download.model_copy(update={"as_of": label})})


def not_refused(label: str, before: Sequence[NightRecord]) -> str:
    """A label under which no text was refused, so that a night that is tried again fetches another one."""
    refused = {night.label for night in before if night.decision == "refused" and night.download}
    labels = itertools.chain([label], (f"{label} again {number}" for number in itertools.count(2)))
    return next(one for one in labels if one not in refused)


def only(corpus: str) -> RunConfig:
    """A configuration that fetches a corpus once, whatever night it is."""
    return RunConfig(download=DownloadConfig(corpus=corpus))
