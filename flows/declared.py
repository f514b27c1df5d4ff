"""What ``prefect.yaml`` declares, for who serves it without a work pool, read by the code of `prefect deploy`."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import yaml
from prefect.cli.deploy._config import _handle_deprecated_schedule_fields, _merge_with_default_deploy_config
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.cli.deploy._schedules import _construct_schedules
from prefect.cli.deploy._triggers import _initialize_deployment_triggers
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.importtools import import_object
from prefect.utilities.templating import apply_values, resolve_block_document_references, resolve_variables
from pydantic import ValidationError
from rich.console import Console

from data.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from prefect.deployments.runner import RunnerDeployment

STEPS = ("build", "push", "pull")
"""How a worker comes by the code, which the process that serves it has."""


def deployments(file: Path) -> list[RunnerDeployment]:
    """The deployments of a file, which `prefect deploy` would make of the same.

    Of a deployment's ``work_pool`` only the name and the queue may be given: who serves it needs neither.

    Raises:
        ConfigError: the file cannot be read, or asks for what only a work pool has.
    """
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
        declared = PrefectYamlModel.model_validate(read)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"{file}: {where}: {problem['input']!r} does not fit: {problem['msg']}") from None
    for step in STEPS:
        if getattr(declared, step):
            raise ConfigError(f"{file}: {step}: {_SERVED}")
    return [
        _deployment(file, entry.model_dump(exclude_unset=True, mode="json"))
        for entry in declared.deployments
        if entry.name is not None  # which `prefect deploy --all` passes over, too
    ]


_SERVED = "flows.serve has no work pool; take it away, or deploy with `prefect deploy` and start a worker"


def _deployment(file: Path, declared: dict[str, Any]) -> RunnerDeployment:
    where = f"{file}: deployment {declared['name']}"
    for step in STEPS:
        if declared.get(step):
            raise ConfigError(f"{where}: {step}: {_SERVED}")
    if (declared.get("work_pool") or {}).get("job_variables"):
        raise ConfigError(f"{where}: work_pool.job_variables: {_SERVED}")
    if declared.get("sla"):
        raise ConfigError(f"{where}: sla: only Prefect Cloud has it, and there `prefect deploy` sets it")
    try:
        return _served(declared)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(f"{where}: {error}") from None


def _served(declared: dict[str, Any]) -> RunnerDeployment:
    """As `prefect deploy` goes about it: old spellings, what stands for a block or a variable, schedules, triggers."""
    entry = _handle_deprecated_schedule_fields(_merge_with_default_deploy_config(declared))
    entry = asyncio.run(_resolved(entry))
    schedules = _construct_schedules(entry, {}, console=Console(quiet=True), is_interactive=lambda: False)
    triggers = entry.pop("triggers", None)
    entry = apply_values({**entry, "schedules": None}, {}, warn_on_notset=True, skip_prefixes=["ctx."])
    if not entry["entrypoint"]:
        raise ValueError("entrypoint: name a flow, such as flows.pipeline.language_model")
    limit = entry["concurrency_limit"]
    deployment: RunnerDeployment = import_object(entry["entrypoint"]).to_deployment(
        name=entry["name"],
        version=entry["version"],
        version_type=entry.get("version_type"),
        tags=entry["tags"],
        description=entry["description"],
        schedules=None if schedules is None else [DeploymentScheduleCreate(**schedule) for schedule in schedules],
        paused=entry.get("paused"),
        concurrency_limit=ConcurrencyLimitConfig(**limit) if isinstance(limit, dict) else limit,
        parameters=entry["parameters"],
        triggers=_initialize_deployment_triggers(entry["name"], triggers or []),
        enforce_parameter_schema=entry.get("enforce_parameter_schema") is not False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    # Set, so that one that had been deployed to a pool leaves it.
    deployment.work_pool_name = deployment.work_queue_name = None
    return deployment


async def _resolved(entry: dict[str, Any]) -> dict[str, Any]:
    entry = await resolve_variables(await resolve_block_document_references(entry))
    resolved: Any = apply_values(entry, dict(os.environ), remove_notset=False)
    return dict(resolved)
