"""Fixtures that several packages' tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a complete tiny SD3 pipeline with random weights; read only."""
    from tests.small_sd3 import write_small_sd3  # diffusers takes seconds to import; most tests do without

    return write_small_sd3(tmp_path_factory.mktemp("small-sd3"), "sd3")


@pytest.fixture(scope="session")
def small_sd35(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with SD3.5's qk_norm and dual attention; read only."""
    from tests.small_sd3 import write_small_sd3  # diffusers takes seconds to import; most tests do without

    return write_small_sd3(tmp_path_factory.mktemp("small-sd35"), "sd35")
