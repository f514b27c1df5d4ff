"""Data at rest: corpora, Arrow tables and the artifact store. Knows neither an engine nor Prefect."""

from data.store import loaded

loaded.record()
