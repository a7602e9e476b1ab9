"""One MiniLM for all tests of the router."""

import pytest

from serving.router.embedding import Embedder


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """The packaged model, with a cache that all tests share."""
    return Embedder()
