"""Faults of single images: values that are not finite or out of range, flat images, noise."""

import torch
from torch import Tensor

from corrector.evaluation.similarity import grey


def faults(images: Tensor, *, min_contrast: float, min_correlation: float) -> list[str | None]:
    """The fault of each of `images` `[N, 3, H, W]` in words; None for an image without one.

    Args:
        min_contrast: Least standard deviation of an image's luma; a flat image has 0.
        min_correlation: Least correlation of neighbouring pixels' luma; white noise has 0, pictures 0.8 and
            more.
    """
    return [_fault(image, min_contrast, min_correlation) for image in images]


def neighbour_correlation(luma: Tensor) -> float:
    """Correlation of pixels of `luma` `[H, W]` with their right and lower neighbours, averaged."""
    centred = luma - luma.mean()
    power = centred.square().mean()
    across = (centred[:, 1:] * centred[:, :-1]).mean()
    down = (centred[1:] * centred[:-1]).mean()
    return float((across + down) / (2 * power))


def _fault(image: Tensor, min_contrast: float, min_correlation: float) -> str | None:
    if not bool(torch.isfinite(image).all()):
        return "holds values that are not finite"
    if float(image.min()) < -1e-3 or float(image.max()) > 1 + 1e-3:
        return f"leaves 0..1: {float(image.min()):.3g} to {float(image.max()):.3g}"
    luma = grey(image[None].float())[0, 0]
    contrast = float(luma.std())
    if contrast < min_contrast:
        return f"is flat: contrast {contrast:.3g}, at least {min_contrast:g}"
    correlation = neighbour_correlation(luma)
    if correlation < min_correlation:
        return f"is noise: neighbouring pixels correlate by {correlation:.2f}, at least {min_correlation:g}"
    return None
