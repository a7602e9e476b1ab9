"""How the catalogue stands with the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RegistryHealth:
    """For people and metrics.

    Attributes:
        ok: Whether the latest look succeeded; where it did not, what was served before is served on.
        age_seconds: Since the latest success; None before the first.
        snapshot: Its number.
        error: Of the latest look.
        refused: Versions that an alias points at and that cannot be served, `NAME@VERSION`, and why.
    """

    ok: bool = True
    age_seconds: float | None = None
    snapshot: int = 0
    error: str | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
