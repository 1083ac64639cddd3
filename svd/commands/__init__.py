"""The doors: one file per group of commands; torch is imported inside commands only."""
