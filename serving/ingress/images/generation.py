"""ImageGeneration: one images request, from its parameters to encoded images."""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import numpy as np

from corrector.feedback import GenerationRecord
from serving.engine.request import GeneratedImage
from serving.ingress.app_context import AppContext, RequestContext
from serving.ingress.http.schema import Provenance, Usage, UsageInputDetails
from serving.ingress.image_service import PreviewCallback
from serving.ingress.images.encoding import encode_image
from serving.ingress.images.params import GenerationParams
from serving.ingress.images.safety import refuse_unsafe
from serving.router.decision import Decision

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 5.0
"""After a request's timeout, for the engine to answer that it has run out."""
_REMEMBER_SECONDS = 2.0
"""Longest time for which images wait until their request is stored for feedback."""


@dataclass(frozen=True)
class EncodedImage:
    """A finished image; `file` is base64."""

    file: str
    provenance: Provenance


@dataclass(frozen=True)
class EncodedPreview:
    """A preview, numbered from 0; `file` is base64."""

    index: int
    file: str


class ImageGeneration:
    """Routes, draws, scores, encodes and stores the request for feedback; cancelling a method stops its drawing."""

    def __init__(self, params: GenerationParams, context: RequestContext, app: AppContext) -> None:
        self.params = params
        self.context = context
        self._app = app
        self._deadline = context.started + params.timeout

    @property
    def decision(self) -> Decision:
        """The decision of the router; set by `route`."""
        assert self.context.decision is not None
        return self.context.decision

    async def route(self) -> None:
        """Choose the adapter.

        Raises:
            ApiError: 404: there is no such adapter; 403: the caller may not draw this version.
            TimeoutError: It took too long.
        """
        params, caller = self.params, self.context.caller
        user = self.context.routing_user(params.user)
        async with self._until_deadline():
            decision = await self._app.service.route(
                params.image.prompt, params.adapter, user, unreviewed=caller.unreviewed
            )
        self.context.decision = decision
        self._app.observer.routed(decision)

    async def images(self) -> list[EncodedImage]:
        """All images, in the order of their seeds.

        Raises:
            Exception: The error of the first image that failed, from EngineClient.generate, or ApiError from the safety
                filter; the other images are stopped.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._image(index)) for index in range(len(self.params.seeds))]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        await self._remember()
        return [task.result() for task in tasks]

    async def stream(self) -> AsyncGenerator[EncodedPreview | EncodedImage]:
        """Yield previews of the only image, then the image. Closing the iterator stops the drawing."""
        shown: asyncio.Queue[tuple[int, np.ndarray] | None] = asyncio.Queue()
        task = asyncio.create_task(self._image(0, lambda number, pixels: shown.put_nowait((number, pixels))))
        task.add_done_callback(lambda _: shown.put_nowait(None))
        try:
            while (preview := await shown.get()) is not None:
                number, pixels = preview
                await self._check_safety(pixels)
                yield EncodedPreview(number, await self._encoded(pixels, None))
            image = task.result()
            await self._remember()
            yield image
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def provenance(self, index: int, image: GeneratedImage | None = None) -> Provenance:
        """The provenance of image `index`; without times while `image` is None."""
        decision = self.decision
        adapter = decision.adapter
        return Provenance(
            request_id=self.context.id,
            adapter=decision.adapter_name,
            adapter_version=adapter.version if adapter else None,
            adapter_sha256=adapter.sha256 if adapter else None,
            route=decision.route,
            route_score=decision.score,
            base_revision=self._app.service.base.revision,
            seed=self.params.seeds[index],
            queue_ms=None if image is None else round(image.queue_seconds * 1000),
            denoise_ms=None if image is None else round(image.denoise_seconds * 1000),
        )

    def usage(self) -> Usage:
        """Tokens of all images together."""
        params, base = self.params, self._app.service.base
        count = len(params.seeds)
        text = base.text_tokens * count
        patches = (params.image.width // base.size_unit) * (params.image.height // base.size_unit) * count
        return Usage(
            input_tokens=text,
            input_tokens_details=UsageInputDetails(text_tokens=text, image_tokens=0),
            output_tokens=patches,
            total_tokens=text + patches,
        )

    async def _image(self, index: int, on_preview: PreviewCallback | None = None) -> EncodedImage:
        request = self.params.image_request(
            index,
            request_id=self.context.id,
            adapter=self.decision.adapter,
            user=f"{self.context.caller.name}/{self.params.user}",
            timeout=max(0.0, self._deadline - time.monotonic()),
        )
        async with self._until_deadline():
            image = await self._app.service.engines.generate(request, on_preview)
        self.context.images += 1
        self._app.observer.generated(self.decision, image.queue_seconds, image.denoise_seconds)
        provenance = self.provenance(index, image)
        await self._check_safety(image.pixels)
        return EncodedImage(await self._encoded(image.pixels, provenance), provenance)

    async def _check_safety(self, pixels: np.ndarray) -> None:
        threshold = self._app.settings.nsfw_threshold
        if threshold is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._app.executor, refuse_unsafe, pixels, threshold)

    async def _encoded(self, pixels: np.ndarray, provenance: Provenance | None) -> str:
        params = self.params
        metadata = (
            {"prompt": params.image.prompt, **params.sampling(), **provenance.model_dump()}
            if provenance
            else {}
        )

        def encode() -> str:
            file = encode_image(pixels, params.output_format, params.quality, metadata)
            return base64.b64encode(file).decode()

        return await asyncio.get_running_loop().run_in_executor(self._app.executor, encode)

    async def _remember(self) -> None:
        """Store the request for feedback; if this fails or takes too long, the images are still returned."""
        adapter = self.decision.adapter
        record = GenerationRecord(
            id=self.context.id,
            key=self.context.caller.name,
            created=time.time(),
            prompt=self.params.image.prompt,
            seeds=self.params.seeds,
            adapter=str(adapter) if adapter else None,
            adapter_sha256=adapter.sha256 if adapter else None,
            route=self.decision.route,
            base_revision=self._app.service.base.revision,
            settings=self.params.sampling(),
        )
        try:
            async with asyncio.timeout(_REMEMBER_SECONDS):
                await self._app.service.feedback.remember(record)
        except Exception as error:
            self._app.observer.feedback_lost()
            about = {"request_id": record.id, "adapter": record.adapter}
            if isinstance(error, TimeoutError):
                reason = f"no answer in {_REMEMBER_SECONDS:g} s"
                logger.error("request %s is not remembered: %s", record.id, reason, extra=about)
            else:
                logger.exception("request %s is not remembered", record.id, extra=about)

    def _until_deadline(self) -> asyncio.Timeout:
        """Ends the wait for an engine that does not answer; the engine itself stops drawing at its deadline."""
        return asyncio.timeout(self._deadline - time.monotonic() + _GRACE_SECONDS)
