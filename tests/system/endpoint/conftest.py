"""One endpoint on the run's Ray head for all its tests, over a registry with one champion."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.head import Head
from tests.support.endpoint import Endpoint, running
from tests.support.served_registry import RegistryOf
from tests.support.surveys import small_survey

ALIAS = "gpt-image-1"
PAGE = "https://app.example"


@pytest.fixture(scope="package")
def endpoint(
    ray_head: Head, empty_registry: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    """The champion is version 1; a survey is at /survey; ALIAS stands for the base, and PAGE may draw."""
    folder = tmp_path_factory.mktemp("endpoint")
    registry = RegistryOf(folder / "records", shutil.copytree(empty_registry, folder / "runs" / "registry"))
    registry.crown(registry.add(1))
    small_survey(folder)
    options = (f"--survey={folder / 'survey'}", f"--alias={ALIAS}=auto", f"--cors-origin={PAGE}")
    with running(folder, ray_head, registry, *options) as endpoint:
        yield endpoint
