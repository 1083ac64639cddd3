"""What is measured of samples: families of metrics, each with its controls."""
