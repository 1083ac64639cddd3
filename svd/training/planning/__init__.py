"""What a training will need, told before a rank is started."""
