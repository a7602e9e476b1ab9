"""Clients of the deployments: engines, feedback store and catalogue by their Ray Serve handles."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from corrector.feedback import GenerationRecord, Verdict
from serving.adapter_identity import AdapterIdentity
from serving.catalogue.snapshot import RegistryHealth, Snapshot
from serving.engine.request import EngineFailure, GeneratedImage, ImageRequest, Overloaded
from serving.engine.stats import EngineStats
from serving.ingress.image_service import PreviewCallback

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
"""Engines that may die under one image."""
_POLL_SECONDS = 1.0
_ANSWER_SECONDS = 5.0


class RayEngineClient:
    """An `EngineClient` of the engine deployment; Ray Serve chooses the less busy of two replicas.

    An image depends only on its request: if its engine dies, another engine draws it again.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def generate(
        self, request: ImageRequest, on_preview: PreviewCallback | None = None
    ) -> GeneratedImage:
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
                    return await _result(self._handle.generate.remote(asked))
                return await self._stream(asked, show)
            except RayActorError as error:
                logger.warning("image %s: its engine is gone (%d): %s", request.id, attempt, _line(error))
        raise EngineFailure("engines were lost while drawing")

    async def stats(self) -> EngineStats | None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                stats: EngineStats = await _result(self._handle.stats.remote())
        except (TimeoutError, RayError, EngineFailure, Overloaded) as error:
            logger.warning("no engine answers (%s)", _line(error))
            return None
        return stats

    async def _stream(self, request: ImageRequest, show: PreviewCallback) -> GeneratedImage:
        events: Any = self._handle.options(stream=True).generate_stream.remote(request)
        try:
            async for event in _results(events):
                if isinstance(event, GeneratedImage):
                    return event
                show(*event)
        except asyncio.CancelledError:
            events.cancel()
            raise
        raise EngineFailure("the engine ended without an image")


class RayFeedbackClient:
    """A `FeedbackClient` of the feedback deployment."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def remember(self, request: GenerationRecord) -> None:
        await _result(self._handle.remember.remote(request))

    async def record(self, verdict: Verdict) -> bool:
        return bool(await _result(self._handle.record.remote(verdict)))


class CatalogueClient:
    """Polls the catalogue deployment, keeps its latest snapshot, and calls a function with every new one."""

    def __init__(self, handle: DeploymentHandle[Any], changed: Callable[[Snapshot], Awaitable[None]]) -> None:
        """`changed` may be slow; further snapshots are passed to it before it returns."""
        self._handle = handle
        self._changed = changed
        self._changes: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._edition = ""
        self.snapshot = Snapshot()
        self.health = RegistryHealth(ok=False, error="nothing is known yet")

    async def start(self, patience: float) -> None:
        """Start polling; return when `changed` has returned for the first snapshot, or after `patience` seconds."""
        await self._poll()
        if self._changes:
            await asyncio.wait(self._changes, timeout=patience)
        self._task = asyncio.create_task(self._poll_forever())

    async def find_version(self, name: str, version: str) -> AdapterIdentity | None:
        """A version that is not in the snapshot; None where there is none that can be served."""
        found: AdapterIdentity | None = await _result(self._handle.find.remote(name, version))
        return found

    async def _poll_forever(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            await self._poll()

    async def _poll(self) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                self._edition, snapshot, self.health = await _result(self._handle.poll.remote(self._edition))
        except Exception as error:
            # The present snapshot is still served, and /readyz says that the registry is not ok.
            if self.health.error != _line(error):
                logger.warning("the catalogue does not answer (%s)", _line(error))
            self.health = replace(self.health, ok=False, error=_line(error))
            return
        if snapshot is not None:
            self.snapshot = snapshot
            task = asyncio.create_task(self._apply(snapshot))
            self._changes.add(task)
            task.add_done_callback(self._changes.discard)

    async def _apply(self, snapshot: Snapshot) -> None:
        try:
            await self._changed(snapshot)
        except Exception:
            logger.exception("snapshot %d could not be taken over in full", snapshot.number)


async def _result(response: Any) -> Any:
    """The result of a call; cancelling this cancels the call."""
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except Exception as error:
        raise _cause(error) from error


async def _results(response: Any) -> AsyncIterator[Any]:
    try:
        async for event in response:
            yield event
    except Exception as error:
        raise _cause(error) from error


def _cause(error: Exception) -> Exception:
    """The exception that a deployment raised, or the engine's error for a refusal of Ray Serve."""
    match error:
        case RayTaskError() if isinstance(error.cause, Exception):
            return error.cause
        case BackPressureError():
            return Overloaded("too many images wait already; try again later", retry_after=5.0)
        case DeploymentUnavailableError():
            return EngineFailure("no engine runs")
    return error


def _line(error: BaseException) -> str:
    """The first line of its message, or its type where it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
