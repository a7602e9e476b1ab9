"""A registry, and a catalogue that follows it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corrector.base import resolve_base
from serving.catalogue.adapter_check import adapter_check
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.registry_client import RegistryClient
from serving.engine.adapter_cache import AdapterDiskCache
from serving.settings import CatalogueSettings
from tests.support.served_registry import RegistryOf


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def registry(root: Path, tmp_path: Path) -> RegistryOf:
    """Without content."""
    return RegistryOf(tmp_path / "records", root)


@pytest.fixture
def clock() -> Clock:
    """Of the catalogue."""
    return Clock()


@pytest.fixture
def start(registry: RegistryOf, clock: Clock, tmp_path: Path) -> Iterator[Callable[[], Catalogue]]:
    """Starts a catalogue, as often as one is wanted; each finds what the one before it saved."""
    spec = resolve_base("embedded")
    started = []

    def make() -> Catalogue:
        source = RegistryClient(**registry.place)
        check = adapter_check(spec, 8, AdapterDiskCache(tmp_path / "cache", source, budget=1024**3))
        catalogue = Catalogue(
            source,
            base_revision=spec.revision,
            check=check,
            settings=CatalogueSettings(poll_seconds=0.2),
            saved_at=tmp_path / "snapshot.json",
            clock=clock,
        )
        started.append(catalogue)
        return catalogue

    yield make
    for catalogue in started:
        catalogue.close()


@pytest.fixture
def catalogue(start: Callable[[], Catalogue]) -> Catalogue:
    """That has not read the registry yet."""
    return start()
