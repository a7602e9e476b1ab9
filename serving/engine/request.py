"""ImageRequest, GeneratedImage, and the engine's errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from corrector.errors import UserError
from serving.adapter_identity import AdapterIdentity


class Overloaded(UserError):
    """Too many requests wait already; there may be room in `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[Overloaded], tuple[str, float]]:
        """Pickle with both arguments, since the error is sent between processes."""
        return Overloaded, (str(self), self.retry_after)


class DeadlineMissed(UserError):
    """The request's timeout ran out before its image was done; drawing it was stopped."""


class EngineFailure(Exception):
    """Drawing failed for a reason other than the request: memory, the device, or the engine was stopped."""


class AdapterUnavailable(UserError):
    """The adapter cannot be fetched, does not have the registered bytes, or is not for this base."""


@dataclass(frozen=True)
class ImageRequest:
    """One image.

    Attributes:
        id: For logs; unique.
        seed: Seed of the noise, 0 to 2**63 - 1.
        guidance_scale: Classifier-free guidance; at 1 or below there is none, `negative_prompt` is not read, and the request
            costs half.
        height: Pixels; so is `width`.
        adapter: None for the base.
        user: Users with waiting requests are served in turns.
        timeout: Seconds from submission after which drawing is stopped; None: no limit.
        previews: Number of previews that the caller gets while the image is drawn.
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
class GeneratedImage:
    """An image and how long it took.

    Attributes:
        pixels: [height, width, 3], uint8, RGB.
        adapter: None for the base.
        queue_seconds: From submission to the first denoising step: encoding, loading the adapter, waiting for room.
        denoise_seconds: From the first step to the last.
        decode_seconds: Time of the VAE's decoder.
    """

    pixels: np.ndarray
    adapter: AdapterIdentity | None
    queue_seconds: float
    denoise_seconds: float
    decode_seconds: float
