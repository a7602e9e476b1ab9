"""AdapterIdentity: identifies an adapter in the registry, the caches and the engine's batch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AdapterIdentity:
    """One immutable registered adapter: name, version and bytes; `NAME@VERSION` in requests and responses."""

    name: str
    version: str
    sha256: str
    """SHA-256 of the weights file, 64 hexadecimal digits."""

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"
