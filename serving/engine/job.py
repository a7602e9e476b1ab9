"""Job: a request on its way through the engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from serving.engine.denoiser import Work
from serving.engine.request import Drawn, ImageRequest

Preview = Callable[[int, np.ndarray], None]
"""Told the number of the preview, from 0, and its pixels ``[height, width, 3]`` uint8; called from a thread of the engine."""


@dataclass(eq=False)
class Job:
    """One of them; times are of the monotonic clock, `started` that of its first step."""

    request: ImageRequest
    future: Future[Drawn]
    on_preview: Preview | None
    submitted: float
    awaited: int = 0
    """Of its embeddings and its adapter, those that are not there yet."""
    work: Work | None = None
    started: float = 0.0
    previews: int = 0
    """Shown so far."""

    def expired(self, now: float) -> bool:
        """Whether its time has run out."""
        return self.request.timeout is not None and now > self.submitted + self.request.timeout


def preview_steps(request: ImageRequest) -> list[int]:
    """After which steps the image is shown: evenly between the first and the last."""
    parts = request.previews + 1
    steps = request.num_inference_steps
    return sorted({max(1, round(steps * part / parts)) for part in range(1, parts)} - {steps})
