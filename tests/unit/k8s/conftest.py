"""Rendered manifests."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable

import pytest

from tests.support.manifests import K8S, Manifests, Object, render
from tests.support.paths import PROJECT

ROW = re.compile(r"^ *\| `([\w-]+)` \|([^|]*)\|", re.MULTILINE)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Object]]:
    """Renders a folder below k8s/ with components, each combination once in a process."""
    made: dict[tuple[str, tuple[str, ...]], list[Object]] = {}

    def of(folder: str, components: tuple[str, ...] = ()) -> list[Object]:
        if (folder, components) not in made:
            made[folder, components] = render(K8S / folder, tmp_path_factory.mktemp("own"), components)
        return made[folder, components]

    return of


@pytest.fixture(scope="session")
def manifests() -> Callable[..., Manifests]:
    """Objects to check, with the Secrets that the guide's table lists and the project's version."""
    table = (
        (K8S / "README.md").read_text(encoding="utf-8").partition("| Secret | keys |")[2].partition("\n\n")[0]
    )
    secrets = {name: frozenset(re.findall(r"`([^`]+)`", keys)) for name, keys in ROW.findall(table)}
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return lambda objects, others=(): Manifests(objects, others, secrets, version)
