"""The stages that train the denoiser: planned, started, followed and published."""
