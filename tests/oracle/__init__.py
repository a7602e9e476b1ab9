"""A classifier of the embedded world's pictures, for tests alone."""

from tests.oracle.oracle import Oracle, Verdict

__all__ = ["Oracle", "Verdict"]
