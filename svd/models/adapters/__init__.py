"""Low-rank adapters beside the attention, and their files."""
