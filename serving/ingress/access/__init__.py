"""API keys, limits, and the middleware that applies them and writes the access log."""
