"""Orchestration: the pipeline as Prefect flows. The only floor that imports Prefect."""

import os

from data.store import loaded

loaded.record()

# As [tool.prefect] in pyproject.toml, for flows that are started from elsewhere than the root of the checkout.
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "data,stages,flows")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
