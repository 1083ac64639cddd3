"""Prefect flows: the table of contents of a run."""
