"""Crops an exemplar to a square and resizes it. Metrics resize further, in `corrector.evaluation.images`."""

import numpy as np
import torch
from PIL import Image


def fit(image: Image.Image, resolution: int) -> Image.Image:
    """The largest centred square of `image`, resized to `resolution` pixels a side.

    The filter is Pillow's Lanczos (a = 3), whose support grows with the reduction, so that it is antialiased;
    it works on the sRGB values as stored, in 8 bits. The crop comes first, so that nothing on the way is
    larger than input and result, however long and thin the input. A picture of the right size keeps its
    pixels.

    Other filters move FID by tens (plain against antialiased bilinear: 40), hence one function for all.

    Args:
        image: Any size; anything but RGB is converted without regard to alpha or profile.
        resolution: Pixels a side of the result, at least 1.
    """
    rgb = image.convert("RGB")
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    square = rgb.crop((left, top, left + side, top + side))
    return square.resize((resolution, resolution), Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB picture as float32 `[3, H, W]` in 0..1."""
    pixels = np.array(image.convert("RGB"), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div_(255.0)


def to_image(tensor: torch.Tensor) -> Image.Image:
    """`[3, H, W]` in 0..1 of any float type as an 8-bit RGB picture; values outside are clamped, NaN is 0."""
    values = torch.nan_to_num(tensor.detach().to("cpu", torch.float32)).clamp(0.0, 1.0)
    pixels = values.mul(255.0).round().to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels.numpy()), mode="RGB")
