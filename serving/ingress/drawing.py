"""From an images request to images: routed, drawn, judged, encoded; stopped when nobody waits any more."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from serving.engine.request import Drawn
from serving.ingress.images import encode_image
from serving.ingress.middleware import Exchange
from serving.ingress.plan import Plan
from serving.ingress.safety import refuse_unsafe
from serving.ingress.schema import Provenance, Usage, UsageInputDetails
from serving.ingress.service import DrawnRequest, Observer, Preview, Service
from serving.ingress.settings import IngressSettings
from serving.router.decision import Decision

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 5.0
"""Beyond a request's timeout, for the engine to say so itself."""


@dataclass(frozen=True)
class Picture:
    """A finished image of a request."""

    file: str
    """base64."""
    provenance: Provenance


@dataclass(frozen=True)
class Sketch:
    """An image on the way."""

    index: int
    file: str
    """base64."""


class Drawing:
    """One images request."""

    def __init__(
        self,
        plan: Plan,
        exchange: Exchange,
        service: Service,
        settings: IngressSettings,
        observer: Observer,
        executor: Executor,
    ) -> None:
        self.plan = plan
        self._exchange = exchange
        self._service = service
        self._settings = settings
        self._observer = observer
        self._executor = executor
        self._deadline = exchange.started + plan.timeout

    @property
    def decision(self) -> Decision:
        """Where the prompt goes; known once `route` has returned."""
        assert self._exchange.decision is not None
        return self._exchange.decision

    async def route(self) -> None:
        """Finds the adapter.

        Raises:
            UnknownAdapter: There is no such one.
            TimeoutError: It took too long.
        """
        user = routing_user(self._exchange, self.plan.user)
        async with self._until_deadline():
            decision = await self._service.route(self.plan.prompt, self.plan.wanted, user)
        self._exchange.decision = decision
        self._observer.routed(decision)

    async def pictures(self) -> list[Picture]:
        """All of its images, in the order of their seeds.

        Raises:
            Exception: Of the first that could not be drawn, as Service.draw has it, or ApiError where the safety filter
                withholds it; the others were stopped.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._picture(index)) for index in range(len(self.plan.seeds))]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        pictures = [task.result() for task in tasks]
        await self._remember()
        return pictures

    async def stream(self) -> AsyncGenerator[Sketch | Picture]:
        """The only image, as often as it is shown on the way and then as it is. Closing the iterator stops the drawing."""
        shown: asyncio.Queue[tuple[int, np.ndarray] | None] = asyncio.Queue()
        task = asyncio.create_task(
            self._picture(0, lambda number, pixels: shown.put_nowait((number, pixels)))
        )
        task.add_done_callback(lambda _: shown.put_nowait(None))
        try:
            while (preview := await shown.get()) is not None:
                number, pixels = preview
                await self._judge(pixels)
                yield Sketch(number, await self._encoded(pixels, None))
            picture = task.result()
            await self._remember()
            yield picture
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def provenance(self, index: int, drawn: Drawn | None = None) -> Provenance:
        """How image `index` came about; without times while it is being drawn."""
        decision = self.decision
        adapter = decision.adapter
        return Provenance(
            request_id=self._exchange.id,
            adapter=adapter.name if adapter else "base",
            adapter_version=adapter.version if adapter else None,
            adapter_sha256=adapter.sha256 if adapter else None,
            route=decision.route,
            route_score=decision.score,
            base_revision=self._service.base.revision,
            seed=self.plan.seeds[index],
            queue_ms=None if drawn is None else round(drawn.queue_seconds * 1000),
            denoise_ms=None if drawn is None else round(drawn.denoise_seconds * 1000),
        )

    def usage(self) -> Usage:
        """Of all its images together."""
        count, base = len(self.plan.seeds), self._service.base
        read = base.text_tokens * count
        patches = (self.plan.width // base.size_unit) * (self.plan.height // base.size_unit) * count
        return Usage(
            input_tokens=read,
            input_tokens_details=UsageInputDetails(text_tokens=read, image_tokens=0),
            output_tokens=patches,
            total_tokens=read + patches,
        )

    async def _picture(self, index: int, on_preview: Preview | None = None) -> Picture:
        request = self.plan.image(
            index,
            request_id=self._exchange.id,
            adapter=self.decision.adapter,
            user=f"{self._exchange.caller.name}/{self.plan.user}",
            timeout=max(0.0, self._deadline - time.monotonic()),
        )
        async with self._until_deadline():
            drawn = await self._service.draw(request, on_preview)
        self._exchange.images += 1
        self._observer.drawn(self.decision, drawn.queue_seconds, drawn.denoise_seconds)
        provenance = self.provenance(index, drawn)
        await self._judge(drawn.pixels)
        return Picture(await self._encoded(drawn.pixels, provenance), provenance)

    async def _judge(self, pixels: np.ndarray) -> None:
        threshold = self._settings.nsfw_threshold
        if threshold is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, refuse_unsafe, pixels, threshold)

    async def _encoded(self, pixels: np.ndarray, provenance: Provenance | None) -> str:
        plan = self.plan
        metadata = {"prompt": plan.prompt, **plan.settings(), **provenance.model_dump()} if provenance else {}

        def encode() -> str:
            file = encode_image(pixels, plan.output_format, plan.quality, metadata)
            return base64.b64encode(file).decode()

        return await asyncio.get_running_loop().run_in_executor(self._executor, encode)

    async def _remember(self) -> None:
        adapter = self.decision.adapter
        request = DrawnRequest(
            id=self._exchange.id,
            key=self._exchange.caller.name,
            created=time.time(),
            prompt=self.plan.prompt,
            seeds=self.plan.seeds,
            adapter=str(adapter) if adapter else None,
            adapter_sha256=adapter.sha256 if adapter else None,
            route=self.decision.route,
            base_revision=self._service.base.revision,
            settings=self.plan.settings(),
        )
        try:
            await self._service.remember(request)
        except Exception:
            # A full disk costs the verdict, not the images.
            logger.exception("request %s is not remembered", request.id)

    def _until_deadline(self) -> asyncio.Timeout:
        """The engine keeps the deadline; where it cannot answer any more, this does."""
        left = self._deadline - time.monotonic() + _GRACE_SECONDS
        return asyncio.timeout(left)


def routing_user(exchange: Exchange, user: str) -> str:
    """Who stays with a version of an adapter: the key's end user; without one, every request is somebody else."""
    return f"{exchange.caller.name}/{user}" if user else exchange.id
