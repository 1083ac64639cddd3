"""One loop for every objective, on DeepSpeed."""
