"""Orchestration: the pipeline as Prefect flows. The only floor that imports Prefect."""
