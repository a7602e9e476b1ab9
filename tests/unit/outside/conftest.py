"""A folder for other people's batch files, with the exemplars that they name."""

import shutil
from pathlib import Path

import pytest

from corrector.settings import Settings
from tests.support.paths import EXAMPLES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds `ex/cat-running-on-the-snow`."""
    batches = tmp_path / "batches"
    name = "cat-running-on-the-snow"
    shutil.copytree(EXAMPLES / "exemplars" / name, batches / "ex" / name)
    return batches


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An environment that allows no folder besides the batch file's own."""
    return Settings(
        cache=tmp_path / "cache", storage=str(tmp_path / "runs"), tracking_uri=None, exemplar_roots=()
    )
