"""A flow with nothing of ours in it: four tasks that say that they are cached. What it takes is Prefect's part.

python bare.py [still]

With ``still`` it has no heartbeat, as a cached run of ours has none. What it imported it does not look through for
garbage, as ours does not.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Completed

STAGES = ("download", "tokenize", "train", "evaluate")


@task(cache_policy=NO_CACHE, persist_result=False)
def _stage() -> Any:
    return Completed(name="Cached", message="there is nothing to do", data=0)


@flow
def bare() -> None:
    for name in STAGES:
        _stage.with_options(name=name)(return_state=True)


if __name__ == "__main__":
    gc.freeze()
    if "still" in sys.argv:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            bare()
    else:
        bare()
