"""What layers do on a CPU in place of PyTorch's operations that are slow there."""
