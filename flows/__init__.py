"""Orchestration: the pipeline as Prefect flows. The only floor that imports Prefect."""

import os
import sys
from pathlib import Path

from data.store import loaded

loaded.record()

# As [tool.prefect] in pyproject.toml, for flows that are started from elsewhere than the root of the checkout.
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "data,stages,flows")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

try:
    _home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    _home.mkdir(parents=True, exist_ok=True)
    _usable = os.access(_home, os.W_OK | os.X_OK)
except (OSError, RuntimeError):  # RuntimeError: a user without a home, as in a container
    _usable = False
if not _usable:  # what Prefect makes of that, while it is imported or later, are tracebacks
    print(
        f"rnnlm: Prefect cannot keep what it must in {os.environ.get('PREFECT_HOME') or '~/.prefect'}: "
        "set PREFECT_HOME to a folder that can be written",
        file=sys.stderr,
    )
    sys.exit(2)
