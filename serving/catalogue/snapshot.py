"""What is to be served, as the registry had it at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from serving.identity import AdapterIdentity


@dataclass(frozen=True)
class ServedVersion:
    """A version that an alias points at."""

    identity: AdapterIdentity
    created: datetime


@dataclass(frozen=True)
class Traffic:
    """Who gets a corrected prompt's adapter, as the registered model's tags say.

    Attributes:
        mode: "live" routes to it; "shadow" scores prompts and records what would have been routed, and serves the base.
        challenger_share: Part of its users, 0 to 1, that get the challenger instead of the champion.
    """

    mode: Literal["live", "shadow"] = "live"
    challenger_share: float = 0.0


@dataclass(frozen=True)
class ServedAdapter:
    """A registered model with a champion, and the prompts that it is for.

    Attributes:
        prompt: That it corrects.
        paraphrases: Of the prompt, corrected with it.
        guard_prompts: Neighbours that the base draws as they should be; they never go through the adapter.
    """

    name: str
    prompt: str
    paraphrases: tuple[str, ...]
    guard_prompts: tuple[str, ...]
    champion: ServedVersion
    challenger: ServedVersion | None = None
    traffic: Traffic = Traffic()


@dataclass(frozen=True)
class Snapshot:
    """All of it; `number` grows by one whenever something changed."""

    number: int = 0
    adapters: Mapping[str, ServedAdapter] = field(default_factory=dict)
    """By name."""
