"""The fits of the networks that see pixels: the autoencoder and its temporal decoder."""
