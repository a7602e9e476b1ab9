"""One endpoint for all tests of the ingress."""

from collections.abc import Iterator

import pytest

from serving.ingress.app import create_app
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.ingress import World, small_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Engine, adapters and router behind every app of these tests, but for those that need their own."""
    with small_world(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture(scope="session")
def address(world: World) -> Iterator[str]:
    """Of an app with default settings, open to everybody."""
    with serving(create_app(world.service, IngressSettings())) as address:
        yield address
