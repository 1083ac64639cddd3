"""Sources to an index of raw videos."""
