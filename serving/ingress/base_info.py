"""BaseInfo: properties of the base that requests depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corrector.base import BaseSpec

CLIP_TOKENS = 77
"""Stable Diffusion 3 pads CLIP's part of every prompt to this length."""


@dataclass(frozen=True)
class BaseInfo:
    """A base and its defaults.

    Attributes:
        resolution: Side in pixels of an image whose size is not given.
        num_inference_steps: Default of a request; so is `guidance_scale`.
        max_steps: Maximum of steps of a request.
        size_unit: Both sides of an image are multiples of it, in pixels.
        largest_side: Maximum of a side, in pixels.
        text_tokens: Tokens that the transformer reads with every prompt, padding included.
    """

    name: str
    revision: str
    resolution: int
    num_inference_steps: int
    guidance_scale: float
    max_steps: int
    size_unit: int
    largest_side: int
    text_tokens: int

    @classmethod
    def of(cls, spec: BaseSpec, *, max_steps: int) -> BaseInfo:
        """From the base's configuration files; `max_steps` as in the engine's settings."""
        from corrector.base.spec import json_object

        transformer = json_object(spec.folder / "transformer" / "config.json")
        unit = spec.vae_scale_factor * int(transformer["patch_size"])
        return cls(
            name=spec.name,
            revision=spec.identity,
            resolution=spec.resolution,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            max_steps=max_steps,
            size_unit=unit,
            largest_side=unit * int(transformer["pos_embed_max_size"]),
            text_tokens=CLIP_TOKENS + spec.max_sequence_length,
        )
