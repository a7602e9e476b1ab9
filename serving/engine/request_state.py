"""RequestState: the state of a request in the engine, from submission to its image."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from corrector.adapters import PackedAdapter
from corrector.base import TextEmbeddings
from corrector.sampling import SampleRow
from serving.engine.request import GeneratedImage, ImageRequest

PreviewCallback = Callable[[int, np.ndarray], None]
"""Called from a thread of the engine with the number of the preview, from 0, and its pixels ``[height, width, 3]`` uint8."""


@dataclass(frozen=True)
class ModelInputs:
    """The transformer's inputs for a request: `negative` is None without guidance, `adapter` is None for the base."""

    prompt: TextEmbeddings
    negative: TextEmbeddings | None
    adapter: PackedAdapter | None


@dataclass(eq=False)
class RequestState:
    """A request and its progress; times are of the monotonic clock.

    Attributes:
        inputs: None until the texts are encoded and the adapter is fetched.
        started: Time of the first denoising step.
        steps: Denoising steps taken.
        preview_steps: Numbers of steps after which a preview is still due: evenly between the first and the last.
        previews: Previews shown.
    """

    request: ImageRequest
    on_preview: PreviewCallback | None = None
    future: Future[GeneratedImage] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)
    inputs: ModelInputs | None = None
    started: float = 0.0
    steps: int = 0
    preview_steps: list[int] = field(init=False)
    previews: int = 0

    def __post_init__(self) -> None:
        parts, steps = self.request.previews + 1, self.request.num_inference_steps
        self.preview_steps = sorted(
            {max(1, round(steps * part / parts)) for part in range(1, parts)} - {steps}
        )

    def expired(self, now: float) -> bool:
        """Whether the request's timeout has passed."""
        return self.request.timeout is not None and now > self.submitted + self.request.timeout

    @property
    def rows(self) -> int:
        """Rows of the transformer that the request takes in every step."""
        return self.row(slot=0).forward_rows

    def row(self, slot: int) -> SampleRow:
        """The sampler's row, with its adapter in `slot`."""
        request, inputs = self.request, self.inputs
        assert inputs is not None
        return SampleRow(
            prompt=inputs.prompt,
            negative=inputs.negative,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            slot=slot,
            seed=request.seed,
        )
