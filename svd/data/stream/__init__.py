"""Shards of encoded clips, and the endless resumable stream over them."""
