"""Fixtures of tests that register adapters."""

from collections.abc import Iterator

import pytest

from tests.support.registering import client, forget_s3, registered, registries, shared

__all__ = ["client", "registered", "registries", "shared"]


@pytest.fixture(autouse=True)
def own_s3_clients() -> Iterator[None]:
    """MLflow keeps its clients of S3, whose address is that of another test."""
    with pytest.MonkeyPatch.context() as patch:
        forget_s3(patch)
        yield
        forget_s3(patch)
