"""Plan: an images request with every default filled in, checked against the base and the operator's bounds."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from serving.engine.request import ImageRequest
from serving.identity import AdapterIdentity
from serving.ingress.errors import invalid
from serving.ingress.schema import MAX_SEED, ImagesRequest, OutputFormat
from serving.ingress.service import BaseInfo
from serving.ingress.settings import IngressSettings

_RANDOM_SEEDS = 2**32
"""Seeds are drawn below it: JavaScript, too, reads them exactly."""


@dataclass(frozen=True)
class Plan:
    """What is to be drawn, how it is to be answered.

    Attributes:
        seeds: One per image.
        wanted: "auto", "base", an adapter's name or `NAME@VERSION`.
        user: The client's own end user, "" where not given.
        previews: How many.
        quality: Of jpeg and webp, in percent.
    """

    prompt: str
    negative_prompt: str
    seeds: tuple[int, ...]
    num_inference_steps: int
    guidance_scale: float
    width: int
    height: int
    wanted: str
    user: str
    timeout: float
    stream: bool
    previews: int
    output_format: OutputFormat
    quality: int

    @property
    def size(self) -> str:
        """WIDTHxHEIGHT."""
        return f"{self.width}x{self.height}"

    def settings(self) -> dict[str, Any]:
        """Of sampling, for metadata and the record of requests."""
        return {
            "negative_prompt": self.negative_prompt,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "size": self.size,
        }

    def image(
        self, index: int, *, request_id: str, adapter: AdapterIdentity | None, user: str, timeout: float
    ) -> ImageRequest:
        """What the engine is asked for; `user` is the one that turns are taken by."""
        return ImageRequest(
            id=f"{request_id}-{index}",
            prompt=self.prompt,
            seed=self.seeds[index],
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            height=self.height,
            width=self.width,
            negative_prompt=self.negative_prompt,
            adapter=adapter,
            user=user,
            timeout=timeout,
            previews=self.previews,
        )


def plan_images(body: ImagesRequest, base: BaseInfo, settings: IngressSettings) -> Plan:
    """What a request asks for.

    Raises:
        ApiError: 400, naming the field.
    """
    check_prompt(body.prompt, settings)
    _check_negative_prompt(body, settings)
    _refuse_unsupported(body)
    count = body.n or 1
    width, height = _size(body.size, count, base, settings)
    stream = body.stream or False
    if stream and count > 1:
        raise invalid("n: a stream draws one image; leave it out, or do not stream", param="n")
    if body.partial_images and not stream:
        raise invalid("partial_images: only with stream", param="partial_images")
    output_format = body.output_format or "png"
    if output_format == "png" and body.output_compression not in (None, 100):
        raise invalid("output_compression: png is lossless; ask for jpeg or webp", param="output_compression")
    if body.timeout is not None and body.timeout > settings.max_timeout:
        raise invalid(f"timeout: at most {settings.max_timeout:g} seconds", param="timeout")
    steps = body.num_inference_steps or base.num_inference_steps
    if steps > base.max_steps:
        raise invalid(f"num_inference_steps: at most {base.max_steps}", param="num_inference_steps")
    return Plan(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt or "",
        seeds=_seeds(body.seed, count),
        num_inference_steps=steps,
        guidance_scale=base.guidance_scale if body.guidance_scale is None else body.guidance_scale,
        width=width,
        height=height,
        wanted=_wanted(body, base),
        user=body.safety_identifier or body.user or "",
        timeout=body.timeout or settings.default_timeout,
        stream=stream,
        previews=body.partial_images or 0,
        output_format=output_format,
        quality=100 if body.output_compression is None else body.output_compression,
    )


def check_prompt(prompt: str, settings: IngressSettings) -> None:
    """Whether a prompt may be drawn.

    Raises:
        ApiError: 400.
    """
    if not prompt.strip():
        raise invalid("prompt: it is blank", param="prompt")
    if len(prompt) > settings.max_prompt_chars:
        raise invalid(f"prompt: at most {settings.max_prompt_chars} characters", param="prompt")


def _check_negative_prompt(body: ImagesRequest, settings: IngressSettings) -> None:
    if len(body.negative_prompt or "") > settings.max_prompt_chars:
        raise invalid(
            f"negative_prompt: at most {settings.max_prompt_chars} characters", param="negative_prompt"
        )


def _refuse_unsupported(body: ImagesRequest) -> None:
    if body.response_format == "url":
        raise invalid(
            "response_format: this server keeps no images to link to; ask for b64_json",
            param="response_format",
        )
    if body.background == "transparent":
        raise invalid("background: the base draws opaque images; leave it out", param="background")
    if body.quality not in (None, "auto"):
        raise invalid("quality: leave it out, and choose num_inference_steps and size", param="quality")
    if body.moderation == "low":
        raise invalid(
            "moderation: the operator of this server sets the filter; leave it out", param="moderation"
        )
    if body.style is not None:
        raise invalid("style: leave it out, and describe the style in the prompt", param="style")


def _size(size: str | None, count: int, base: BaseInfo, settings: IngressSettings) -> tuple[int, int]:
    """Width and height."""
    if size in (None, "auto"):
        width = height = base.resolution
    else:
        width, height = (int(side) for side in size.split("x"))
    unit, largest = base.size_unit, base.largest_side
    if width % unit or height % unit or max(width, height) > largest:
        raise invalid(
            f"size: {base.name} draws sides that are multiples of {unit} up to {largest} pixels", param="size"
        )
    if count * width * height > settings.max_request_pixels:
        raise invalid(
            f"size: {count} images of {width}x{height} are {count * width * height} pixels; a request may have "
            f"{settings.max_request_pixels}",
            param="size",
        )
    return width, height


def _seeds(seed: int | None, count: int) -> tuple[int, ...]:
    first = secrets.randbelow(_RANDOM_SEEDS) if seed is None else seed
    if first + count - 1 > MAX_SEED:
        raise invalid(f"seed: with {count} images at most {MAX_SEED - count + 1}", param="seed")
    return tuple(range(first, first + count))


def _wanted(body: ImagesRequest, base: BaseInfo) -> str:
    """`model` names the base, whose requests are routed, or an adapter; `adapter` is more precise."""
    named = None if body.model in (None, "", base.name) else body.model
    if named is not None and body.adapter is not None and body.adapter != named:
        raise invalid(
            f"adapter: it is not the one that `model` names; leave one out, or set model to {base.name}",
            param="adapter",
        )
    return named or body.adapter or "auto"
