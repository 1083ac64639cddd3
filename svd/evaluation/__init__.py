"""Metrics, extractors, protocols, gates and the report."""
