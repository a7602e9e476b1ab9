"""A local registry that tests need not wait for: its tables are made once."""

import shutil
from pathlib import Path

import pytest

from corrector.registry import prepare


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared registry without content; read only."""
    root = tmp_path_factory.mktemp("empty") / "registry"
    prepare(None, root)
    return root


@pytest.fixture
def root(empty_registry: Path, tmp_path: Path) -> Path:
    """A registry of the test's own, under a path that needs quoting."""
    return Path(shutil.copytree(empty_registry, tmp_path / "registry #1 ü%20"))
