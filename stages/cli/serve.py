"""The command that answers other programs over HTTP."""

from __future__ import annotations

import os
import re
import signal
from contextlib import closing
from ipaddress import ip_address
from typing import Annotated

import typer

from data.errors import ConfigError, Interrupted
from stages.cli.options import Model, Place, configured

TOKEN = "RNNLM_TOKEN"


@configured
def serve(
    *,
    host: Annotated[
        str,
        typer.Option(metavar="NAME|ADDRESS", help=f"Listen there; beyond this machine only with a token in ${TOKEN}."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 is one that is free.")] = 8000,
    model: Model = None,
    place: Place,
) -> None:
    """Complete and score texts for other programs, over HTTP: all champions by name, each followed as it changes.

    POST /v1/completions is OpenAI's legacy API; GET / is a page to type into. SIGTERM finishes what runs.
    """
    loopback, token = _loopback(host), os.environ.get(TOKEN) or None
    if not loopback and token is None:
        raise ConfigError(
            f"--host {host} lets other machines in: put a token that they must show into the variable {TOKEN}"
        )
    if token is not None and not re.fullmatch("[!-~]+", token):
        raise ConfigError(f"{TOKEN} must be of ASCII characters without spaces or line ends, which any client can send")

    from stages.lm.network import one_thread
    from stages.serving import connection
    from stages.serving.application import Application
    from stages.serving.guard import Guard
    from stages.serving.metrics import Metrics
    from stages.serving.models import Champions, Fixed, Models
    from stages.serving.writer import Writer

    # One thread for products all the while, whoever computes: as many as they are, so the last bits come out.
    with closing(connection.listening(host, port)) as bound, one_thread():
        writer = Writer()
        metrics = Metrics(writer)
        models = Models(Champions(place.open) if model is None else Fixed(model), metrics)
        models.begin()
        application = Application(models, writer, metrics)
        hosts = frozenset({"localhost", "127.0.0.1", "[::1]", host.lower(), f"[{host.lower()}]"}) if loopback else None
        served = ", ".join(f"{name} ({one.loaded.key[:16]})" for name, one in models.served.items())
        server = connection.Server(Guard(application.routes, metrics, hosts, token), application, served)
        server.run([bound])
    name = signal.Signals(server.signum).name
    written = "cut off" if server.cut else "finished"
    raise Interrupted(f"ended by {name}; what was being written is {written}", server.signum)


def _loopback(host: str) -> bool:
    """Whether only this machine gets there."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
