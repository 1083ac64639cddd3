"""Networks that turn pictures and videos into features, each with its card."""
