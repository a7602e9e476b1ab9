"""RoutedService: a router, a store of feedback, and engines that may be here or elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from serving.catalogue.health import RegistryHealth
from serving.catalogue.snapshot import ServedAdapter, Snapshot
from serving.engine.request import Drawn, ImageRequest
from serving.identity import AdapterIdentity
from serving.ingress.service import BaseInfo, DrawnRequest, Preview, Readiness, Verdict
from serving.router.decision import Decision
from serving.router.requested import UnknownAdapter, requested
from serving.router.router import Router

AUTO = "auto"

VersionFinder = Callable[[str, str], Awaitable[AdapterIdentity | None]]
"""The adapter of a name and a version that no alias of the snapshot points at; None: there is none."""


class Engines(Protocol):
    """Whatever draws."""

    async def draw(self, request: ImageRequest, on_preview: Preview | None = None) -> Drawn:
        """See `Service.draw`."""

    async def status(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether images can be drawn, and what people may want to know of it."""


class Feedback(Protocol):
    """Whatever keeps requests and verdicts."""

    async def remember(self, request: DrawnRequest) -> None:
        """See `Service.remember`."""

    async def record(self, verdict: Verdict) -> bool:
        """See `Service.record_feedback`."""


class RoutedService:
    """A `Service`."""

    def __init__(
        self,
        base: BaseInfo,
        engines: Engines,
        router: Router,
        feedback: Feedback,
        *,
        snapshot: Callable[[], Snapshot],
        registry: Callable[[], RegistryHealth] = RegistryHealth,
        find: VersionFinder | None = None,
    ) -> None:
        """`snapshot` is what `router` was updated with; `find` None: only what aliases point at can be asked for. None of
        the parts are closed here."""
        self.base = base
        self._engines = engines
        self._router = router
        self._feedback = feedback
        self._snapshot = snapshot
        self._registry = registry
        self._find = find
        # One thread: heads are one product of matrices, and an embedding holds a lock.
        self._routing = ThreadPoolExecutor(1, "routing")

    async def route(self, prompt: str, adapter: str, user: str) -> Decision:
        """See `Service`."""
        if adapter != AUTO:
            return await self._requested(adapter, user)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._routing, lambda: self._router.route(prompt, user=user))

    async def _requested(self, adapter: str, user: str) -> Decision:
        snapshot = self._snapshot()
        try:
            return requested(snapshot, adapter, user)
        except UnknownAdapter:
            name, _, version = adapter.partition("@")
            if self._find is None or not name or not version:
                raise
        found = await self._find(name, version)
        return requested(snapshot, adapter, user, lambda *_: found)

    async def draw(self, request: ImageRequest, on_preview: Preview | None = None) -> Drawn:
        """See `Service`."""
        return await self._engines.draw(request, on_preview)

    async def adapters(self) -> Sequence[ServedAdapter]:
        """See `Service`."""
        return tuple(self._snapshot().adapters.values())

    async def ready(self) -> Readiness:
        """See `Service`."""
        ready, status = await self._engines.status()
        return Readiness(ready, status, self._registry())

    async def remember(self, request: DrawnRequest) -> None:
        """See `Service`."""
        await self._feedback.remember(request)

    async def record_feedback(self, verdict: Verdict) -> bool:
        """See `Service`."""
        return await self._feedback.record(verdict)

    def close(self) -> None:
        """Ends its thread."""
        self._routing.shutdown(cancel_futures=True)
