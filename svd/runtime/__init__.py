"""Log, seed, workspace, storage, tracking and launching."""
