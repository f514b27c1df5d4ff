"""All deployments of ``prefect.yaml`` from one process, with neither a work pool nor a worker.

python -m flows.serve
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import typer
from prefect.runner import Runner
from prefect.settings import PREFECT_API_URL

from data.errors import ServerError
from flows.declared import deployments
from stages.cli.app import enter
from stages.training import signals

if TYPE_CHECKING:
    from types import FrameType

DECLARED = Path(__file__).with_name("prefect.yaml")
SECONDS_TO_END = 45
"""How long runs, which are given half a minute to put down what they hold, and the server may keep it from ending."""


class _Serving(Runner):
    """A runner that ends within `SECONDS_TO_END` of the first signal, and at once at the second one."""

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        for signum in signals.ending():
            signal.signal(signum, signal.SIG_DFL)
        # Prefect asks a server that is away again and again, a minute for each deployment that it wants to pause.
        timer = threading.Timer(SECONDS_TO_END, os._exit, [128 + signal.SIGTERM])
        timer.daemon = True
        timer.start()
        super().handle_sigterm(*args, **kwargs)


def main() -> None:
    """Serve the deployments of `prefect.yaml` until SIGTERM, SIGHUP or Ctrl-C: runs that are on are cancelled, and keep
    a checkpoint."""
    address = PREFECT_API_URL.value()
    if not address:
        raise ServerError(
            "serving needs a server that stays: start it (`prefect server start`), and set PREFECT_API_URL to it"
        )
    try:
        served = deployments(DECLARED)
        runner = _Serving()
        for deployment in served:
            runner.add_deployment(deployment)
    except (httpx.TransportError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
            raise
        raise ServerError(
            f"the Prefect server at {address} does not answer: start it (`prefect server start`)"
        ) from error
    print("serving", ", ".join(f"{deployment.flow_name}/{deployment.name}" for deployment in served), flush=True)
    for signum in {*signals.ending()} - {signal.SIGTERM}:
        signal.signal(signum, _as_sigterm)
    asyncio.run(runner.start())


def _as_sigterm(signum: int, frame: FrameType | None) -> None:
    """Where Prefect takes Ctrl-C for itself, it kills the runs that are on."""
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    enter(app)
