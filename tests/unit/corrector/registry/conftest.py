"""Fixtures of tests that register adapters."""

from tests.support.registering import client, registered, registries, shared

__all__ = ["client", "registered", "registries", "shared"]
