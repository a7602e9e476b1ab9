"""Deployments seen from the ingress: engines, the catalogue and the feedback store by their Ray Serve handles."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serving.catalogue.health import RegistryHealth
from serving.catalogue.snapshot import Snapshot
from serving.engine.request import Drawn, EngineFailure, ImageRequest, Overloaded
from serving.identity import AdapterIdentity
from serving.ingress.service import DrawnRequest, Preview, Verdict

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ATTEMPTS = 3
"""Engines that may be lost under one image."""
_FOLLOW_SECONDS = 1.0
_ANSWER_SECONDS = 5.0


class RemoteEngines:
    """One of `Engines`: the replicas of the engine's deployment; the least busy of two draws.

    An image depends on its request alone, so that one whose engine dies is drawn again by another.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def draw(self, request: ImageRequest, on_preview: Preview | None = None) -> Drawn:
        """See `Service.draw`."""
        began = time.monotonic()
        shown = 0

        def show(number: int, pixels: Any) -> None:
            nonlocal shown
            if on_preview is not None and number >= shown:
                shown = number + 1
                on_preview(number, pixels)

        for attempt in range(1, _ATTEMPTS + 1):
            left = None if request.timeout is None else request.timeout - (time.monotonic() - began)
            asked = replace(request, timeout=left if left is None else max(0.0, left))
            try:
                if on_preview is None:
                    return await _answer(self._handle.draw.remote(asked))
                return await self._shown(asked, show)
            except RayActorError as error:
                logger.warning("image %s: its engine is gone (%d): %s", request.id, attempt, _line(error))
        raise EngineFailure("engines were lost while drawing")

    async def status(self) -> tuple[bool, Mapping[str, Any]]:
        """See `Engines`; of one replica."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                stats = await _answer(self._handle.stats.remote())
        except (TimeoutError, RayError, EngineFailure, Overloaded) as error:
            return False, {"error": f"no engine answers ({_line(error)})"}
        return stats.healthy, stats.described()

    async def _shown(self, request: ImageRequest, show: Preview) -> Drawn:
        events: Any = self._handle.options(stream=True).draw_showing.remote(request)
        try:
            async for event in _events(events):
                if isinstance(event, Drawn):
                    return event
                show(*event)
        except asyncio.CancelledError:
            events.cancel()
            raise
        raise EngineFailure("the engine ended without an image")


class RemoteFeedback:
    """Feedback kept by its deployment."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def remember(self, request: DrawnRequest) -> None:
        """See `Service.remember`."""
        await _answer(self._handle.remember.remote(request))

    async def record(self, verdict: Verdict) -> bool:
        """See `Service.record_feedback`."""
        return bool(await _answer(self._handle.record.remote(verdict)))


class Follower:
    """Keeps the catalogue's latest snapshot at hand, and tells of every new one."""

    def __init__(self, handle: DeploymentHandle[Any], changed: Callable[[Snapshot], Awaitable[None]]) -> None:
        """`changed` is awaited at its own pace; a snapshot that comes meanwhile is told of as well."""
        self._handle = handle
        self._changed = changed
        self._changes: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._edition = ""
        self.snapshot = Snapshot()
        self._health = RegistryHealth(ok=False, error="nothing is known yet")

    @property
    def health(self) -> RegistryHealth:
        """Of the registry, as the catalogue has it."""
        return self._health

    async def start(self, patience: float) -> None:
        """Returns when the first snapshot has been acted on, or after `patience` seconds; then goes on alone."""
        await self._look()
        if self._changes:
            await asyncio.wait(self._changes, timeout=patience)
        self._task = asyncio.create_task(self._follow())

    async def find(self, name: str, version: str) -> AdapterIdentity | None:
        """A version that no alias of the snapshot points at; None where there is none that can be served."""
        found: AdapterIdentity | None = await _answer(self._handle.find.remote(name, version))
        return found

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            await self._look()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                self._edition, snapshot, health = await _answer(self._handle.look.remote(self._edition))
        except Exception as error:
            # Whatever it was: what is known is served on, and /readyz says so.
            self._health = replace(
                self._health, ok=False, error=f"the catalogue does not answer ({_line(error)})"
            )
            return
        self._health = health
        if snapshot is not None:
            self.snapshot = snapshot
            task = asyncio.create_task(self._act(snapshot))
            self._changes.add(task)
            task.add_done_callback(self._changes.discard)

    async def _act(self, snapshot: Snapshot) -> None:
        try:
            await self._changed(snapshot)
        except Exception:
            logger.exception("snapshot %d could not be taken over in full", snapshot.number)


async def _answer(response: Any) -> Any:
    """What a deployment answers, or raises; whoever stops waiting stops the work."""
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except Exception as error:
        raise _of_ray(error) from error


async def _events(response: Any) -> AsyncIterator[Any]:
    try:
        async for event in response:
            yield event
    except Exception as error:
        raise _of_ray(error) from error


def _of_ray(error: Exception) -> Exception:
    """What a deployment raised, as it raised it; Ray's own refusals in the engine's words."""
    match error:
        case RayTaskError() if isinstance(error.cause, Exception):
            return error.cause
        case BackPressureError():
            return Overloaded("too many images wait already; try again later", retry_after=5.0)
        case DeploymentUnavailableError():
            return EngineFailure("no engine runs")
    return error


def _line(error: BaseException) -> str:
    """The first of its message, or what it is where it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
