"""Weights on disk: every known layout, read, written and turned into each other."""
