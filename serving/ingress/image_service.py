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


@dataclass(frozen=True)
class AdapterChoice:
    """The adapter that a request asks for: "auto", "base", a name or `NAME@VERSION`.

    Attributes:
        field: The field of the request that names it.
        written: What that field says, where the configuration makes it another name of `wanted`.
    """

    wanted: str = AUTO
    field: str = "adapter"
    written: str | None = None

    def unknown(self, error: UnknownAdapter) -> ApiError:
        """The answer where there is no such adapter."""
        message = f"{self.field}: {error}"
        if self.written not in (None, self.wanted):
            message = f'{self.field}: "{self.written}" stands for "{self.wanted}", and {error}'
        elif self.field == "model":
            message += "; the operator can give models further names (ingress.model_aliases)"
        return ApiError(404, message, code="model_not_found", param=self.field)


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
    # One thread is enough: an embedding holds a lock.
    _routing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "routing"), init=False)

    async def route(self, prompt: str, choice: AdapterChoice, user: str, *, unreviewed: bool) -> Decision:
        """Where a prompt goes.

        Args:
            unreviewed: Whether the adapter may be a version that is not in the snapshot.

        Raises:
            ApiError: 404: there is no such adapter; 403: the version is not in the snapshot, and `unreviewed` is False.
        """
        if choice.wanted == AUTO:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._routing, lambda: self.router.route(prompt, user=user))
        snapshot = self.snapshot()
        try:
            return requested(snapshot, choice.wanted, user)
        except UnknownAdapter as error:
            name, _, version = choice.wanted.partition("@")
            if self.find_version is None or not name or not version:
                raise choice.unknown(error) from None
        if not unreviewed:
            raise ApiError(
                403,
                f"{choice.field}: this API key may draw reviewed versions only, which are champion and challenger; "
                "another needs a key that was added with --versions any",
                code="version_not_reviewed",
                param=choice.field,
            )
        try:
            return requested(snapshot, choice.wanted, user, await self.find_version(name, version))
        except UnknownAdapter as error:
            raise choice.unknown(error) from None
