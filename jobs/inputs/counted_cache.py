"""CountedCache: a content cache that reports whether each read found something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from corrector.base import ContentCache


class CountedCache(ContentCache):
    """A ContentCache that calls `counted` at each read, with whether the entry was there."""

    def __init__(self, place: Path, counted: Callable[[bool], None]) -> None:
        super().__init__(place)
        self._counted = counted

    def get(self, key: str) -> dict[str, Tensor] | None:
        found = super().get(key)
        self._counted(found is not None)
        return found
