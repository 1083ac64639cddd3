"""The page people open: everything a run left behind, in one file."""
