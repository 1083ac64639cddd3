"""Schedules, solvers, guidance and the video samplers."""
