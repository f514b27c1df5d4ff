"""Orchestration: the pipeline as Prefect flows. The only floor that imports Prefect."""

import io
import os
import re
import sys
from contextlib import redirect_stderr
from pathlib import Path

from pydantic import ValidationError

from data import shown
from data.store import loaded

loaded.record()

# As [tool.prefect] in pyproject.toml, for flows that are started from elsewhere than the root of the checkout.
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "data,stages,flows")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
if "@" in os.environ.get("PREFECT_API_URL", ""):  # or each run would log whom it asks as, with the UI's address
    _ui = re.sub("//[^/]*@", "//", os.environ["PREFECT_API_URL"]).rstrip("/").removesuffix("/api")
    os.environ.setdefault("PREFECT_UI_URL", _ui)

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

_said = io.StringIO()
try:
    with redirect_stderr(_said):
        import prefect.context  # noqa: F401 (what it makes of a setting that does not fit are tracebacks, too)
except ValidationError as error:
    _problem = error.errors(include_url=False, include_input=False)[0]
    _field = " ".join(map(str, (error.title, *_problem["loc"])))
    print(
        f"rnnlm: Prefect refuses one of its settings, {_field}: {shown.line(_problem['msg'])}; correct what begins "
        "with PREFECT_ in the environment, or its profile",
        file=sys.stderr,
    )
    sys.exit(2)
print(end=_said.getvalue(), file=sys.stderr)
if not os.environ.get("PREFECT_API_URL", "").isprintable():
    print("rnnlm: PREFECT_API_URL is no address: it holds what cannot be printed", file=sys.stderr)
    sys.exit(2)
