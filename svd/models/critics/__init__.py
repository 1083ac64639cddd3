"""Networks that judge pixels, and the published weights they are made of."""
