"""What the engine is asked to draw, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from corrector.errors import UserError
from serving.identity import AdapterIdentity


class Overloaded(UserError):
    """Too much waits already; `retry_after` is in how many seconds there may be room."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[Overloaded], tuple[str, float]]:
        """Between processes, too, with both of its parts."""
        return Overloaded, (str(self), self.retry_after)


class DeadlineMissed(UserError):
    """The request's time ran out before its image was done; drawing it was stopped."""


class EngineFailure(Exception):
    """Drawing failed for a reason that is not the request's: memory, the device, or the engine was stopped."""


class AdapterUnavailable(UserError):
    """The adapter cannot be had: not fetched, not the registered bytes, or not for this base."""


@dataclass(frozen=True)
class ImageRequest:
    """One image.

    Attributes:
        id: For logs; unique.
        seed: Of its noise, 0 to 2**63 - 1.
        guidance_scale: Classifier-free guidance; at 1 or below there is none, `negative_prompt` is not read, and the request
            costs half.
        height: Pixels; so is `width`.
        adapter: None for the base.
        user: Whose turn it is: users with waiting requests are served in turns.
        timeout: Seconds from submission after which nobody waits for the image any more; None: no bound.
        previews: How many times on the way the caller is shown the image as it stands.
    """

    id: str
    prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    negative_prompt: str = ""
    adapter: AdapterIdentity | None = None
    user: str = ""
    timeout: float | None = None
    previews: int = 0


@dataclass(frozen=True)
class Drawn:
    """An image and how it came about.

    Attributes:
        pixels: [height, width, 3], uint8, RGB.
        adapter: That drew it.
        queue_seconds: From submission to the first denoising step: encoding, loading the adapter, waiting for room.
        denoise_seconds: From the first step to the last; `decode_seconds`: the VAE.
    """

    pixels: np.ndarray
    adapter: AdapterIdentity | None
    queue_seconds: float
    denoise_seconds: float
    decode_seconds: float
