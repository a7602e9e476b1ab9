"""One MiniLM for all tests of the router."""

from collections.abc import Iterator

import pytest
import torch

from serving.router.embedding import Embedder


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """The packaged model, with a cache that all tests share."""
    return Embedder()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
