"""Pure metrics: tensors in, numbers out, no files and no networks."""
