"""One endpoint for all its tests, over a registry with one champion."""

from collections.abc import Iterator

import pytest

from cluster import head as heads
from cluster.head import Head, HeadOptions
from corrector.registry import prepare
from tests.serving.endpoint.running import Endpoint, running
from tests.serving.registry import RegistryOf


@pytest.fixture(scope="package")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """With two CPUs, and no thread more."""
    state = tmp_path_factory.mktemp("head")
    head = heads.start(HeadOptions(num_cpus=2), state=state)
    yield head
    heads.stop(head, state=state)


@pytest.fixture(scope="package")
def endpoint(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The champion is version 1."""
    folder = tmp_path_factory.mktemp("endpoint")
    root = folder / "runs" / "registry"
    prepare(None, root)
    registry = RegistryOf(folder / "records", root)
    registry.crown(registry.add(1))
    with running(folder, head, registry) as endpoint:
        yield endpoint
