"""Service: what the routes need from whatever draws behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from corrector.base.spec import json_object
from serving.catalogue.health import RegistryHealth
from serving.catalogue.snapshot import ServedAdapter
from serving.engine.request import Drawn, ImageRequest
from serving.router.decision import Decision

if TYPE_CHECKING:
    from corrector.base import BaseSpec

Preview = Callable[[int, np.ndarray], None]
"""Told the number of a preview, from 0, and its pixels `[height, width, 3]` uint8, in the event loop that asked for it."""

CLIP_TOKENS = 77
"""Stable Diffusion 3 pads CLIP's part of every prompt to this length."""


@dataclass(frozen=True)
class BaseInfo:
    """What requests must know of the base.

    Attributes:
        resolution: Side in pixels of an image whose size is not given.
        num_inference_steps: Where a request gives none; so is `guidance_scale`.
        max_steps: That the engine takes.
        size_unit: Pixels that both sides are multiples of.
        largest_side: In pixels.
        text_tokens: That the transformer reads with every prompt, padding included.
    """

    name: str
    revision: str
    resolution: int
    num_inference_steps: int
    guidance_scale: float
    max_steps: int
    size_unit: int
    largest_side: int
    text_tokens: int

    @classmethod
    def of(cls, spec: BaseSpec, *, max_steps: int) -> BaseInfo:
        """Of a base, from its configuration files; `max_steps` as in the engine's settings."""
        transformer = json_object(spec.folder / "transformer" / "config.json")
        unit = spec.vae_scale_factor * int(transformer["patch_size"])
        return cls(
            name=spec.name,
            revision=spec.identity,
            resolution=spec.resolution,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            max_steps=max_steps,
            size_unit=unit,
            largest_side=unit * int(transformer["pos_embed_max_size"]),
            text_tokens=CLIP_TOKENS + spec.max_sequence_length,
        )


@dataclass(frozen=True)
class Readiness:
    """Whether images can be drawn, and what stands behind the answer; `engine` is for people to read."""

    ready: bool
    engine: Mapping[str, Any]
    registry: RegistryHealth


@dataclass(frozen=True)
class DrawnRequest:
    """A request that was answered with images: what a verdict on it is about.

    Attributes:
        id: The request's; `key` is the name of the API key that it came with.
        created: Seconds since 1970.
        adapter: `NAME@VERSION`; None for the base.
        settings: Of sampling: steps, guidance scale, size, negative prompt.
    """

    id: str
    key: str
    created: float
    prompt: str
    seeds: tuple[int, ...]
    adapter: str | None
    adapter_sha256: str | None
    route: str
    base_revision: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What somebody thinks of a request's images; `key` as in DrawnRequest."""

    request_id: str
    key: str
    verdict: Literal["good", "bad"]
    note: str = ""


class Service(Protocol):
    """Routes, draws and remembers. Drawing fails as the engine does: Overloaded, DeadlineMissed, AdapterUnavailable,
    EngineFailure; whatever else is raised is answered with 500.
    """

    @property
    def base(self) -> BaseInfo:
        """That it draws with."""

    async def route(self, prompt: str, adapter: str, user: str) -> Decision:
        """Where a prompt goes; `adapter` is "auto", "base", a name or `NAME@VERSION`.

        Raises:
            UnknownAdapter: It is none of these (serving.router.requested).
        """

    async def draw(self, request: ImageRequest, on_preview: Preview | None = None) -> Drawn:
        """One image. Cancelling the task that waits for it stops its drawing."""

    async def adapters(self) -> Sequence[ServedAdapter]:
        """All that are served."""

    async def ready(self) -> Readiness:
        """How it stands."""

    async def remember(self, request: DrawnRequest) -> None:
        """Keeps what a verdict may be given on."""

    async def record_feedback(self, verdict: Verdict) -> bool:
        """Stores a verdict; False where the key drew no such request, or too long ago, or has judged it enough."""


class Observer(Protocol):
    """Told what the ingress does; must not wait. Metrics are made of it."""

    def routed(self, decision: Decision) -> None:
        """An image request's prompt was routed."""

    def rejected(self, status: int, code: str) -> None:
        """A request was answered with an error."""

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request has ended; `route` is the path's template, such as /v1/models/{model}, and "" where there is none."""

    def drawn(self, decision: Decision, queue_seconds: float, denoise_seconds: float) -> None:
        """An image was drawn."""


class Unobserved:
    """Nobody looks."""

    def routed(self, decision: Decision) -> None:
        """Nothing."""

    def rejected(self, status: int, code: str) -> None:
        """Nothing."""

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Nothing."""

    def drawn(self, decision: Decision, queue_seconds: float, denoise_seconds: float) -> None:
        """Nothing."""
