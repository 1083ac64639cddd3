"""Probe, decode, cut and encode video files."""
