"""Annotations to verdicts, splits and the dataset report."""
