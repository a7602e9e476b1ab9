"""What tests of exemplars share."""

from collections.abc import Iterator

import pytest

from tests.support.images_api import KEY, ImagesApiServer, images_api


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImagesApiServer]:
    """An images API, whose key the environment has."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with images_api() as server:
        yield server
