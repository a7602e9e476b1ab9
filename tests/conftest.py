"""Fixtures that several packages' tests share."""

import os
import shutil
from pathlib import Path

import pytest

from tests.mlflow_server import mlflow_server
from tests.object_store import object_store, s3

__all__ = ["mlflow_server", "object_store", "s3"]

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--reference PATH``: a checkout of diffusers, whose own training script the parity tests run."""
    parser.addoption("--reference", type=Path, help="checkout of huggingface/diffusers to compare with")


@pytest.fixture(scope="session")
def reference_checkout(request: pytest.FixtureRequest) -> Path:
    """The checkout given with ``--reference``; tests that need it are skipped without."""
    path: Path | None = request.config.getoption("--reference")
    if path is None:
        pytest.skip("no --reference PATH with a checkout of huggingface/diffusers")
    return path


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


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The Chromium of this machine; tests that need it are skipped without, and fail where REQUIRE_BROWSER is set."""
    found = next((path for path in map(shutil.which, CHROMIUM) if path is not None), None)
    if found is None:
        reason = f"no Chromium on the PATH ({', '.join(CHROMIUM)}): install the Debian package chromium"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(found)
