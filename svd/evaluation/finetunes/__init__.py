"""What finetunes learned, against what they were derived from."""
