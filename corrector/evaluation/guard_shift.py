"""What an adapter does to a guard prompt, seen in single predictions: it tells which guard prompts need images at all.

Hard negatives are seen in the same way.

At the first step of sampling the model predicts the image from pure noise, and with it the layout. An adapter that leaks moves
the prediction for a guard prompt from the base's towards that for the corrected prompt. The shift is the share of that way: 0
is the base's prediction, 1 the corrected prompt's. A seed costs two forwards where a pair of images takes about a hundred.
"""

import torch
from torch import Tensor


def guard_shift(base: Tensor, corrected: Tensor, leaked: Tensor) -> Tensor:
    """The shift `[K]` of each prediction of a guard prompt.

    Args:
        base: The base's predictions for the guard prompt from K noises, `[K, C, h, w]`.
        corrected: The corrected model's, from the same noises.
        leaked: The corrected model's predictions for the corrected prompt, from the same noises.
    """
    moved, way = (each.double().flatten(1) - base.double().flatten(1) for each in (corrected, leaked))
    return (moved * way).sum(1) / way.square().sum(1).clamp_min(torch.finfo(torch.float64).tiny)
