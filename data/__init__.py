"""Data at rest: corpora, Arrow tables and the artifact store. Knows neither MXNet nor Prefect."""

from data.store import loaded

loaded.record()
