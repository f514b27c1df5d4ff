"""The flow run that this process carries out, as the server has it: its deployment's configuration, its state.

Called from Python, outside of any flow run, there is nobody to ask, and everything is as it was given.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import httpx
from prefect import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound

from data.errors import ConfigError, Interrupted, ServerError
from stages.pipeline.settings import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect.client.schemas.objects import FlowRun, State

    from stages.config import RunConfig

SECONDS_TO_ANSWER = 120
"""How long a server may be away, restarting for one, before a run does without its answer."""


def configuration(config: RunConfig) -> RunConfig:
    """What was given to this run, laid over the configuration of its deployment, field by field.

    Prefect itself lays a run's parameters over its deployment's as wholes: one field of ``config``, given for a run,
    would take the place of all that the deployment says.

    Raises:
        ConfigError: the deployment is gone, or its configuration is none.
    """
    run = _own()
    if run is None or run.deployment_id is None:
        return config
    try:
        with get_client(sync_client=True) as client:
            base = client.read_deployment(run.deployment_id).parameters.get("config", {})
    except ObjectNotFound:
        raise ConfigError(
            "the deployment of this run is gone, and with it the configuration that the run's was to be laid over: "
            "deploy it again, and start another run"
        ) from None
    return parse(_over(base, config.model_dump(mode="json", exclude_unset=True)))


def cancelled() -> bool:
    """Whether somebody has cancelled this run, as far as the server answers."""
    run = _own()
    if run is None:
        return False
    try:
        state = _state(run)
    except (httpx.HTTPError, ObjectNotFound):
        return False
    return state is not None and _is_cancelled(state)


def check_wanted() -> None:
    """Go on only if the server has this run as running: what is decided by one that was given up, nobody expects.

    Raises:
        Interrupted: somebody has cancelled it.
        ServerError: it is over for the server, or that has not answered for `SECONDS_TO_ANSWER`.
    """
    run = _own()
    if run is None:
        return
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    while True:
        try:
            state = _state(run)
            break
        except (httpx.HTTPError, ObjectNotFound) as error:
            if time.monotonic() >= deadline or isinstance(error, ObjectNotFound):
                raise ServerError(
                    "nothing was decided, for the Prefect server cannot say whether this run is still wanted "
                    f"({error}): the next one finds all the work done, and decides"
                ) from None
            time.sleep(2)
    if state is None or state.is_running():
        return
    if _is_cancelled(state):
        raise Interrupted("nothing was decided, for the run was cancelled by then: the champion stays", signal.SIGTERM)
    raise ServerError(
        f"nothing was decided, for the Prefect server had this run as {state.name} by then: the champion stays"
    )


def _own() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context else None


def _state(run: FlowRun) -> State[Any] | None:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id).state


def _is_cancelled(state: State[Any]) -> bool:
    return state.is_cancelling() or state.is_cancelled()


def _over(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A field's value, a list for one, is taken as a whole."""
    return {**base, **{section: {**base.get(section, {}), **fields} for section, fields in given.items()}}
