"""Shards of cached latents and the resumable stream over them."""
