"""Prepares images for metrics: rounds them to 8 bits, and resizes them with one antialiased filter.

The decoder and the filter change metrics by tens of points (Parmar et al. 2022, arXiv 2104.11222).
"""

import torch
from torch import Tensor
from torch.nn import functional


def as_stored(images: Tensor) -> Tensor:
    """`images` `[N, 3, H, W]` as a saved PNG would hold them: 0..1 in steps of 1/255.

    So images in memory and the stored files have the same score. Values that are not finite stay; `sanity` reports
    them.
    """
    images = images.float()
    return torch.where(images.isfinite(), images.mul(255).round().clamp(0, 255).div(255), images)


def resized(images: Tensor, side: int) -> Tensor:
    """`images` `[N, 3, H, W]` as `[N, 3, side, side]` in 0..1 by Pillow's antialiased bicubic, in float."""
    return _interpolated(images, side, side)


def same_size(images: Tensor, like: Tensor) -> Tensor:
    """`images` `[N, 3, h, w]` at the size of `like` `[M, 3, H, W]`, with the filter of `resized`."""
    return _interpolated(images, *like.shape[-2:])


def _interpolated(images: Tensor, height: int, width: int) -> Tensor:
    if images.shape[-2:] == (height, width):
        return images
    return functional.interpolate(images, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)
