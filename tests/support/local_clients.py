"""An engine and a feedback store of this process, as the ingress's clients."""

from __future__ import annotations

import asyncio

import numpy as np

from corrector.feedback import FeedbackStore, GenerationRecord, Verdict
from serving.engine.engine import Engine
from serving.engine.request import GeneratedImage, ImageRequest
from serving.engine.stats import EngineStats
from serving.ingress.image_service import PreviewCallback


class LocalEngineClient:
    """An `EngineClient`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def generate(
        self, request: ImageRequest, on_preview: PreviewCallback | None = None
    ) -> GeneratedImage:
        loop = asyncio.get_running_loop()

        def show(number: int, pixels: np.ndarray) -> None:
            assert on_preview is not None
            loop.call_soon_threadsafe(on_preview, number, pixels)

        return await asyncio.wrap_future(self._engine.submit(request, show if on_preview else None))

    async def stats(self) -> EngineStats | None:
        return self._engine.stats()


class LocalFeedbackClient:
    """A `FeedbackClient`."""

    def __init__(self, store: FeedbackStore) -> None:
        self._store = store

    async def remember(self, request: GenerationRecord) -> None:
        await asyncio.to_thread(self._store.remember, request)

    async def record(self, verdict: Verdict) -> bool:
        return await asyncio.to_thread(self._store.record, verdict)
