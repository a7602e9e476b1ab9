"""ImageService: the router, the engines and the feedback store behind the routes."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from corrector.feedback import GenerationRecord, Verdict
from serving.adapter_identity import AdapterIdentity
from serving.catalogue.snapshot import RegistryHealth, Snapshot
from serving.engine.request import GeneratedImage, ImageRequest
from serving.engine.stats import EngineStats
from serving.ingress.base_info import BaseInfo
from serving.ingress.http.errors import ApiError
from serving.router.decision import Decision
from serving.router.requested import UnknownAdapter, requested
from serving.router.router import Router

AUTO = "auto"

PreviewCallback = Callable[[int, np.ndarray], None]
"""Called in the event loop with the number of a preview, from 0, and its pixels `[height, width, 3]` uint8."""
VersionFinder = Callable[[str, str], Awaitable[AdapterIdentity | None]]
"""The adapter of a name and a version that no alias of the snapshot points at; None where there is none."""


class EngineClient(Protocol):
    """The engines, or a client of them."""

    async def generate(
        self, request: ImageRequest, on_preview: PreviewCallback | None = None
    ) -> GeneratedImage:
        """Draw one image. Cancelling the awaiting task stops the drawing.

        Raises:
            Overloaded, DeadlineMissed, AdapterUnavailable, EngineFailure: As the engine does.
        """

    async def stats(self) -> EngineStats | None:
        """The statistics of one engine; None where none answers."""


class FeedbackClient(Protocol):
    """The feedback store, or a client of it."""

    async def remember(self, request: GenerationRecord) -> None:
        """See `FeedbackStore.remember`."""

    async def record(self, verdict: Verdict) -> bool:
        """See `FeedbackStore.record`."""


@dataclass(frozen=True)
class ImageService:
    """The parts of an endpoint; this class does not close them.

    Attributes:
        snapshot: The snapshot of the last update of `router`.
        find_version: Finds other versions; None: requests can name only versions of the snapshot.
    """

    base: BaseInfo
    engines: EngineClient
    router: Router
    feedback: FeedbackClient
    snapshot: Callable[[], Snapshot]
    registry_health: Callable[[], RegistryHealth] = RegistryHealth
    find_version: VersionFinder | None = None
    # One thread is enough: all heads are one matrix product, and an embedding holds a lock.
    _routing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "routing"), init=False)

    async def route(self, prompt: str, adapter: str, user: str, *, unreviewed: bool) -> Decision:
        """Where a prompt goes.

        Args:
            adapter: "auto", "base", a name or `NAME@VERSION`.
            unreviewed: Whether `adapter` may be a version that is not in the snapshot.

        Raises:
            UnknownAdapter: There is no such adapter.
            ApiError: 403: the version is not in the snapshot, and `unreviewed` is False.
        """
        if adapter == AUTO:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._routing, lambda: self.router.route(prompt, user=user))
        snapshot = self.snapshot()
        try:
            return requested(snapshot, adapter, user)
        except UnknownAdapter:
            name, _, version = adapter.partition("@")
            if self.find_version is None or not name or not version:
                raise
        if not unreviewed:
            raise ApiError(
                403,
                "adapter: this API key may draw reviewed versions only, which are champion and challenger; "
                "another needs a key that was added with --versions any",
                code="version_not_reviewed",
                param="adapter",
            )
        return requested(snapshot, adapter, user, await self.find_version(name, version))
