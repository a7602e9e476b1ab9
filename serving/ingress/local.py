"""An engine and a store of feedback of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.engine.engine import Engine
from serving.engine.request import Drawn, ImageRequest
from serving.ingress.feedback import FeedbackStore
from serving.ingress.service import DrawnRequest, Preview, Verdict


class LocalEngine:
    """One of `Engines`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def draw(self, request: ImageRequest, on_preview: Preview | None = None) -> Drawn:
        """See `Service.draw`."""
        loop = asyncio.get_running_loop()

        def show(number: int, pixels: np.ndarray) -> None:
            assert on_preview is not None
            loop.call_soon_threadsafe(on_preview, number, pixels)

        return await asyncio.wrap_future(self._engine.submit(request, show if on_preview else None))

    async def status(self) -> tuple[bool, Mapping[str, Any]]:
        """See `Engines`."""
        stats = self._engine.stats()
        return stats.healthy, stats.described()


class LocalFeedback:
    """One of `Feedback`."""

    def __init__(self, store: FeedbackStore) -> None:
        self._store = store

    async def remember(self, request: DrawnRequest) -> None:
        """See `Feedback`."""
        await asyncio.to_thread(self._store.remember, request)

    async def record(self, verdict: Verdict) -> bool:
        """See `Feedback`."""
        return await asyncio.to_thread(self._store.record, verdict)
