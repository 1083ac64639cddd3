"""Human preference: studies of blind pairs, the server that takes votes, and what they say."""
