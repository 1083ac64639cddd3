"""What every rank runs: one loop for every objective, on DeepSpeed."""
