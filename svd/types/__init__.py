"""Records and batches that travel on the edges between stages."""
