"""Versions, gates, promotion and lineage of models."""
