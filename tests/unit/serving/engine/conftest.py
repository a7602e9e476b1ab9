"""One engine and its adapters for all tests of the engine."""

from collections.abc import Iterator

import pytest

from serving.adapter_identity import AdapterIdentity
from serving.engine.engine import Engine
from tests.support.engine_requests import SPEC, settings
from tests.support.served_adapters import FolderSource, write_adapter


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Six adapters of ranks 2, 4 and 8."""
    root = tmp_path_factory.mktemp("registry")
    return FolderSource(
        (
            write_adapter(root / f"fix-{seed}", f"fix-{seed}", seed=seed, rank=(4, 8, 2)[seed % 3]),
            root / f"fix-{seed}",
        )
        for seed in range(6)
    )


@pytest.fixture(scope="session")
def adapters(source: FolderSource) -> list[AdapterIdentity]:
    """Those of the source."""
    return list(source.folders)


@pytest.fixture(scope="session")
def engine(source: FolderSource, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """For all tests that leave it as it was."""
    engine = Engine(SPEC, source, settings(tmp_path_factory.mktemp("cache"), max_waiting=16))
    yield engine
    engine.close()


@pytest.fixture
def held_source(source: FolderSource) -> Iterator[FolderSource]:
    """The shared engine's source, which hands nothing out before `available` is set."""
    source.available.clear()
    yield source
    source.available.set()
