"""What an engine tells of itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from serving.engine.request import Drawn
from serving.identity import AdapterIdentity


class Observer(Protocol):
    """Told what the engine does, from its threads; must not wait."""

    def stepped(self, rows: int, seconds: float) -> None:
        """A denoising step of so many rows."""

    def drawn(self, drawn: Drawn) -> None:
        """An image is done."""

    def loaded(self) -> None:
        """An adapter was copied to the device."""


@dataclass(frozen=True)
class EngineStats:
    """An engine at one moment."""

    waiting: int
    """Images that were submitted and are not being drawn yet."""
    drawing: int
    resident: tuple[AdapterIdentity, ...]
    """Adapters on the device."""
    host_adapters: int
    host_bytes: int
    adapter_loads: int
    text_bytes: int
    healthy: bool

    def described(self) -> dict[str, Any]:
        """For JSON: adapters as `NAME@VERSION`."""
        return asdict(self) | {"resident": [str(adapter) for adapter in self.resident]}
