"""What a step of the denoiser lowers, and what chance decides in it."""
