"""Images on their way to a metric: rounded to 8 bits, resized by one antialiased filter.

Metrics move by tens of points with the decoder and the filter (Parmar et al. 2022, arXiv 2104.11222).
"""

from torch import Tensor
from torch.nn import functional


def as_stored(images: Tensor) -> Tensor:
    """`images` `[N, 3, H, W]` as a saved PNG would hold them: 0..1 in steps of 1/255.

    A score is then the same whether the images come from memory or from the files that a reviewer sees.
    Values that are not finite stay as they are, for `sanity` to report.
    """
    return images.float().mul(255).round().clamp(0, 255).div(255)


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
