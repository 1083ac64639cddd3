"""Raw videos to cuts, clips and a bank of sampled frames."""
