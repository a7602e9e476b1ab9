"""GenerationParams: an images request with all defaults, checked against the base and the operator's limits."""

import secrets
from dataclasses import dataclass, replace
from typing import Any

from serving.adapter_identity import AdapterIdentity
from serving.engine.request import ImageRequest
from serving.ingress.base_info import BaseInfo
from serving.ingress.http.errors import ApiError, invalid
from serving.ingress.http.schema import MAX_SEED, ImagesRequest, OutputFormat
from serving.ingress.image_service import AUTO, AdapterChoice
from serving.settings import IngressSettings

_RANDOM_SEEDS = 2**32
"""Random seeds are below it, so that JavaScript reads them exactly."""


@dataclass(frozen=True)
class GenerationParams:
    """The parameters of drawing and of the answer.

    Attributes:
        image: The engine's request, with the values that all images share.
        seeds: One per image.
        ignored: Fields of the request that change nothing.
        user: The client's end user; "" where not given.
        timeout: Seconds for all images.
        quality: Quality of jpeg and webp, in percent.
    """

    image: ImageRequest
    seeds: tuple[int, ...]
    adapter: AdapterChoice
    user: str
    timeout: float
    stream: bool
    output_format: OutputFormat
    quality: int
    ignored: tuple[str, ...]

    @property
    def size(self) -> str:
        """WIDTHxHEIGHT."""
        return f"{self.image.width}x{self.image.height}"

    def sampling(self) -> dict[str, Any]:
        """The settings of sampling, for metadata and feedback."""
        return {
            "negative_prompt": self.image.negative_prompt,
            "num_inference_steps": self.image.num_inference_steps,
            "guidance_scale": self.image.guidance_scale,
            "size": self.size,
        }

    def image_request(
        self, index: int, *, request_id: str, adapter: AdapterIdentity | None, user: str, timeout: float
    ) -> ImageRequest:
        """The engine's request for image `index`."""
        identifier, seed = f"{request_id}-{index}", self.seeds[index]
        return replace(self.image, id=identifier, seed=seed, adapter=adapter, user=user, timeout=timeout)


def generation_params(body: ImagesRequest, base: BaseInfo, settings: IngressSettings) -> GenerationParams:
    """The parameters of a request.

    Raises:
        ApiError: 400; the message names the field.
    """
    check_prompt(body.prompt, settings)
    if len(body.negative_prompt or "") > settings.max_prompt_chars:
        raise _mistake("negative_prompt", f"at most {settings.max_prompt_chars} characters")
    count, stream = body.n or 1, body.stream or False
    width, height = _size(body.size, count, base, settings)
    if stream and count > 1:
        raise _mistake("n", "a stream draws one image; leave it out, or do not stream")
    if body.partial_images and not stream:
        raise _mistake("partial_images", "only with stream")
    output_format = body.output_format or "png"
    if output_format == "png" and body.output_compression not in (None, 100):
        raise _mistake("output_compression", "png is lossless; ask for jpeg or webp")
    if body.timeout is not None and body.timeout > settings.max_timeout:
        raise _mistake("timeout", f"at most {settings.max_timeout:g} seconds")
    steps = body.num_inference_steps or base.num_inference_steps
    if steps > base.max_steps:
        raise _mistake("num_inference_steps", f"at most {base.max_steps}")
    seeds = _seeds(body.seed, count)
    image = ImageRequest(
        id="",
        prompt=body.prompt,
        seed=seeds[0],
        num_inference_steps=steps,
        guidance_scale=base.guidance_scale if body.guidance_scale is None else body.guidance_scale,
        height=height,
        width=width,
        negative_prompt=body.negative_prompt or "",
        previews=body.partial_images or 0,
    )
    return GenerationParams(
        image,
        seeds,
        adapter=_adapter(body, base, settings),
        user=body.safety_identifier or body.user or "",
        timeout=body.timeout or settings.default_timeout,
        stream=stream,
        output_format=output_format,
        quality=100 if body.output_compression is None else body.output_compression,
        ignored=_ignored(body),
    )


def check_prompt(prompt: str, settings: IngressSettings) -> None:
    """Check a prompt.

    Raises:
        ApiError: 400: it may not be drawn.
    """
    if not prompt.strip():
        raise _mistake("prompt", "it is blank")
    if len(prompt) > settings.max_prompt_chars:
        raise _mistake("prompt", f"at most {settings.max_prompt_chars} characters")


def _mistake(field: str, message: str) -> ApiError:
    return invalid(f"{field}: {message}", param=field)


def _ignored(body: ImagesRequest) -> tuple[str, ...]:
    """Fields that ask for a choice that this server does not have; `auto` leaves the choice to it."""
    fields = ("quality", "style", "moderation", "complexity")
    return tuple(field for field in fields if getattr(body, field) not in (None, "auto"))


def _size(size: str | None, count: int, base: BaseInfo, settings: IngressSettings) -> tuple[int, int]:
    if size in (None, "auto"):
        width = height = base.resolution
    else:
        width, height = (int(side) for side in size.split("x"))
    unit, largest = base.size_unit, base.largest_side
    if width % unit or height % unit or max(width, height) > largest:
        raise _mistake("size", f"{base.name} draws sides that are multiples of {unit} up to {largest} pixels")
    pixels = count * width * height
    if pixels > settings.max_request_pixels:
        raise _mistake(
            "n" if size in (None, "auto") else "size",
            f"{count} images of {width}x{height} are {pixels} pixels; a request may have "
            f"{settings.max_request_pixels}",
        )
    return width, height


def _seeds(seed: int | None, count: int) -> tuple[int, ...]:
    first = secrets.randbelow(_RANDOM_SEEDS) if seed is None else seed
    if first + count - 1 > MAX_SEED:
        raise _mistake("seed", f"with {count} images at most {MAX_SEED - count + 1}")
    return tuple(range(first, first + count))


def _adapter(body: ImagesRequest, base: BaseInfo, settings: IngressSettings) -> AdapterChoice:
    """The adapter that `adapter` names, or else `model`; requests for the base as `model` are routed."""
    model = settings.model_aliases.get(body.model or "", body.model or "")
    if model in ("", AUTO, base.name):
        return AdapterChoice(body.adapter or AUTO)
    if body.adapter is not None and body.adapter != model:
        message = f"it is not the one that `model` names; leave one out, or set model to {base.name}"
        raise _mistake("adapter", message)
    return AdapterChoice(model, "model", body.model)
