"""Selects the adapter for a prompt; independent of Ray, the registry, HTTP and the engine."""
