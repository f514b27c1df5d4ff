"""Orchestration: the pipeline as Prefect flows. The only floor that imports Prefect."""

import os

# Wherever a flow is started from: stage logs and progress reach the UI, and a server of the flow's own calls nobody.
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "data,stages,flows")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
