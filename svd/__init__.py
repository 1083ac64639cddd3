"""From raw video to a promoted Stable Video Diffusion model."""
