"""Data at rest: corpora, Arrow tables and the artifact store. Knows neither MXNet nor Prefect."""
