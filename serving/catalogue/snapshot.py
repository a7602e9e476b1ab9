"""Snapshot: the served adapters, from one state of the registry; and RegistryHealth."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from corrector.files import write_atomically
from serving.adapter_identity import AdapterIdentity

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedVersion:
    """A version that an alias points at."""

    identity: AdapterIdentity
    created: datetime


@dataclass(frozen=True)
class Traffic:
    """Which requests use an adapter, according to the tags of the registered model.

    Attributes:
        mode: "live" routes to the adapter; "shadow" only records that it would have been chosen, and serves the base.
        challenger_share: Share of the adapter's users, 0 to 1, that get the challenger instead of the champion.
    """

    mode: Literal["live", "shadow"] = "live"
    challenger_share: float = 0.0


@dataclass(frozen=True)
class ServedAdapter:
    """A registered model with a champion.

    Attributes:
        prompt: The prompt that it corrects.
        paraphrases: Paraphrases of the prompt, which it also corrects.
        guard_prompts: Similar prompts that the base draws correctly; they are not routed to the adapter.
        hard_negatives: Other prompts that are not routed to the adapter.
    """

    name: str
    prompt: str
    paraphrases: tuple[str, ...]
    guard_prompts: tuple[str, ...]
    champion: ServedVersion
    challenger: ServedVersion | None = None
    traffic: Traffic = Traffic()
    hard_negatives: tuple[str, ...] = ()


_ADAPTERS = TypeAdapter(dict[str, ServedAdapter])


@dataclass(frozen=True)
class Snapshot:
    """All served adapters by name; `number` grows by one with every change."""

    number: int = 0
    adapters: Mapping[str, ServedAdapter] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the file for an endpoint that starts while the registry is down; a failure is logged."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, _ADAPTERS.dump_json(dict(self.adapters), indent=1))
        except OSError as error:
            _logger.warning("%s: what is served cannot be kept: %s", path, error)

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        """The saved snapshot, with number 0; empty where there is none, or the file is damaged."""
        try:
            return cls(0, _ADAPTERS.validate_json(path.read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            _logger.warning("%s: not read: %s", path, error)
        return cls()


@dataclass(frozen=True)
class RegistryHealth:
    """Whether the catalogue reaches the registry, for people and metrics.

    Attributes:
        ok: Whether the latest poll succeeded; otherwise the previous snapshot is still served.
        age_seconds: Seconds since the latest success; None before the first.
        snapshot: Number of the snapshot that is served.
        error: Error of the latest poll.
        refused: Why a version that an alias points at cannot be served, by `NAME@VERSION`.
    """

    ok: bool = True
    age_seconds: float | None = None
    snapshot: int = 0
    error: str | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
