"""A folder for batch files, with exemplars for them to name."""

from pathlib import Path

import pytest

from corrector.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds `exemplars/lying` and `exemplars/sitting`, one file each, and `exemplars/empty`."""
    batches = tmp_path / "batches"
    for name in ("lying", "sitting"):
        (batches / "exemplars" / name).mkdir(parents=True)
        (batches / "exemplars" / name / "1.png").write_bytes(b"never opened here")
    (batches / "exemplars" / "empty").mkdir()
    return batches


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An environment that allows no folder besides the batch file's own."""
    return Settings(
        cache=tmp_path / "cache", storage=str(tmp_path / "runs"), tracking_uri=None, exemplar_roots=()
    )
