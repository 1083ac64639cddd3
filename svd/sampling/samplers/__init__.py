"""Schedules, solvers, guidance, and the samplers that turn a condition into frames."""
