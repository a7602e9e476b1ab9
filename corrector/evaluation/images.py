"""The one way that an image reaches a metric: decode, round to 8 bits, resize with one antialiased filter."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


def load_image(path: Path, side: int) -> Tensor:
    """An image file as `[3, side, side]` in 0..1, resized by Pillow's Lanczos on 8-bit RGB.

    The metrics move by tens of points with the decoder and the filter (Parmar et al. 2022, arXiv 2104.11222),
    so every file that is scored comes through here.
    """
    with Image.open(path) as image:
        rgb = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    pixels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return pixels.reshape(side, side, 3).permute(2, 0, 1).float() / 255


def as_stored(images: Tensor) -> Tensor:
    """`images` `[N, 3, H, W]` as a saved PNG would hold them: 0..1 in steps of 1/255.

    A score is then the same whether the images come from memory or from the files that a reviewer sees.
    Values that are not finite stay as they are, for `sanity` to report.
    """
    return images.float().mul(255).round().clamp(0, 255).div(255)


def resized(images: Tensor, side: int) -> Tensor:
    """`images` `[N, 3, H, W]` as `[N, 3, side, side]` in 0..1 by Pillow's antialiased bicubic, in float."""
    if images.shape[-2:] == (side, side):
        return images
    return functional.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)


def same_size(images: Tensor, like: Tensor) -> Tensor:
    """`images` `[N, 3, h, w]` at the size of `like` `[M, 3, H, W]`, with the filter of `resized`."""
    if images.shape[-2:] == like.shape[-2:]:
        return images
    height, width = like.shape[-2:]
    return functional.interpolate(images, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)
