"""Crops or pads an exemplar to a square and resizes it. Metrics resize further, in `corrector.evaluation.images`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from corrector.prompts.failing_prompt import ExemplarFit

if TYPE_CHECKING:
    import torch


def fit(image: Image.Image, resolution: int, how: ExemplarFit = "crop") -> Image.Image:
    """`image` as a square of `resolution` pixels a side: its largest centred square, or all of it between two bars.

    The filter is Pillow's antialiased Lanczos (a = 3) on the stored 8-bit sRGB values. The crop comes first, and bars
    come last, which bounds memory for long, thin pictures. A picture of the right size keeps its pixels.

    Each bar has the mean colour of the edge that it continues. On a plain background it does not show; elsewhere it is
    one flat area without structure. Mirrored edges would show limbs twice, and a blurred copy of the picture would look like
    a photograph's background. A fine-tune still learns bars that it sees often, so pictures that a person cropped to
    squares are better than padded ones.

    The choice of filter changes FID by tens (plain against antialiased bilinear: 40).

    Args:
        image: Of any size; other modes are converted to RGB without regard to alpha or profile.
        resolution: Width and height of the result in pixels, at least 1.
        how: Whether what does not fit is cropped off, or bars are added.
    """
    rgb = image.convert("RGB")
    side = min(rgb.size)
    if how == "pad" and side < max(rgb.size):
        return _padded(rgb, resolution)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    square = rgb.crop((left, top, left + side, top + side))
    return square.resize((resolution, resolution), Image.Resampling.LANCZOS)


def lost_share(size: tuple[int, int]) -> float:
    """Share of a picture of this size that the crop cuts off, which is the share of bars in the padded square; 0 to 1."""
    return 1 - min(size) / max(size)


def fitted_side(size: tuple[int, int], how: ExemplarFit) -> int:
    """Pixels of a picture of this size that become the side of the square."""
    return min(size) if how == "crop" else max(size)


def _padded(rgb: Image.Image, resolution: int) -> Image.Image:
    width, height = (max(1, round(resolution * each / max(rgb.size))) for each in rgb.size)
    resized = rgb.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (resolution - width) // 2, (resolution - height) // 2
    square = Image.new("RGB", (resolution, resolution))
    for edge, bar in (
        ((0, 0, width, 1), (0, 0, resolution, top)),
        ((0, height - 1, width, height), (0, top + height, resolution, resolution)),
        ((0, 0, 1, height), (0, 0, left, resolution)),
        ((width - 1, 0, width, height), (left + width, 0, resolution, resolution)),
    ):
        if bar[0] < bar[2] and bar[1] < bar[3]:
            square.paste(
                resized.crop(edge)
                .resize((1, 1), Image.Resampling.BOX)
                .resize((bar[2] - bar[0], bar[3] - bar[1])),
                bar,
            )
    square.paste(resized, (left, top))
    return square


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB picture as float32 `[3, H, W]` in 0..1."""
    import torch  # takes a second, and exemplars are checked without it

    pixels = np.array(image.convert("RGB"), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div_(255.0)


def to_image(tensor: torch.Tensor) -> Image.Image:
    """`[3, H, W]` in 0..1 of any float type as an 8-bit RGB picture; values outside are clamped, NaN is 0."""
    import torch

    values = torch.nan_to_num(tensor.detach().to("cpu", torch.float32)).clamp(0.0, 1.0)
    pixels = values.mul(255.0).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels.numpy()), mode="RGB")
