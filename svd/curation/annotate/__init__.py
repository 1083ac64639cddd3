"""What is measured and said of every clip."""
