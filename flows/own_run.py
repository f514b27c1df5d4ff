"""The flow run that this process carries out, as the server has it: its deployment's configuration, its state.

Called from Python, outside of any flow run, there is nobody to ask, and everything is as it was given.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import httpx
from prefect import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound

from data.errors import ConfigError, Interrupted, ServerError
from stages.pipeline.settings import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prefect.client.schemas.objects import FlowRun, State

    from stages.config import RunConfig

SECONDS_TO_ANSWER = 120
"""How long a server may be away, restarting for one, before a run does without its answer."""
SECONDS_BETWEEN_LOOKS, LOOKS = 10.0, 4
"""How often a run looks whether it was cancelled, and how many looks in a row have to say so: by then Prefect's worker
has ended it, if it can."""


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
            base = client.read_deployment(run.deployment_id).parameters.get("config") or {}
    except ObjectNotFound:
        raise ConfigError(
            "the deployment of this run is gone, and with it the configuration that the run's was to be laid over: "
            "deploy it again, and start another run"
        ) from None
    return parse(_over(base, config.model_dump(mode="json", exclude_unset=True)))


def cancelled() -> bool:
    """Whether somebody has cancelled this run, as far as the server answers."""
    run = _own()
    return run is not None and _is_cancelled(run)


@contextmanager
def watched() -> Iterator[threading.Event]:
    """While this holds, what it gives is set once somebody has cancelled this run and Prefect has not ended it.

    Ending it is its worker's business. But one whose server was away for half a minute does not hear of cancellations
    any more, one that was killed hears of nothing, and a run that was started by hand has none.
    """
    run, unheeded, over = _own(), threading.Event(), threading.Event()

    def watch(run: FlowRun) -> None:
        looks = 0
        while looks < LOOKS and not over.wait(SECONDS_BETWEEN_LOOKS):
            looks = looks + 1 if _is_cancelled(run) else 0
        if looks == LOOKS:
            unheeded.set()

    if run is not None:
        threading.Thread(target=copy_context().run, args=(watch, run), daemon=True, name="cancellation").start()
    try:
        yield unheeded
    finally:
        over.set()


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
    if state.is_cancelling() or state.is_cancelled():
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


def _is_cancelled(run: FlowRun) -> bool:
    try:
        state = _state(run)
    except Exception:  # whatever is wrong with the server: work that nobody can be asked about goes on
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def _over(base: Any, given: Mapping[str, Any]) -> Any:
    """A field's value, a list for one, is taken as a whole; what is no table stays, to be refused."""
    if not isinstance(base, dict):
        return base
    before = {section: base.get(section, {}) for section in given}
    return base | {name: one | given[name] if isinstance(one, dict) else one for name, one in before.items()}
