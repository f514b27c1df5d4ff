"""All deployments of ``prefect.yaml`` from one process, with neither a work pool nor a worker.

python -m flows.serve
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.schedules import CronSchedule
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.importtools import import_object

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

DECLARED = Path(__file__).with_name("prefect.yaml")


def deployments() -> list[RunnerDeployment]:
    """What ``prefect.yaml`` declares, so that both ways to deploy say the same."""
    declared = yaml.safe_load(DECLARED.read_text(encoding="utf-8"))["deployments"]
    return [_deployment(entry) for entry in declared]


def _deployment(entry: dict[str, Any]) -> RunnerDeployment:
    limit = entry.get("concurrency_limit")
    return import_object(entry["entrypoint"]).to_deployment(  # type: ignore[no-any-return]
        name=entry["name"],
        description=entry["description"],
        parameters=entry.get("parameters"),
        schedules=[CronSchedule(**schedule) for schedule in entry.get("schedules", [])],
        concurrency_limit=ConcurrencyLimitConfig(**limit) if limit else None,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


if __name__ == "__main__":
    serve(*deployments())
