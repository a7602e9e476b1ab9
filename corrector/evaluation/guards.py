"""Damage to neighbouring prompts, measured by a nearest-mean classifier on the base's own images.

The base's own images are the reference for a guard prompt. A guard image is recognised if the mean of its own prompt's base
images is nearer to it than the means of the other guard prompts and of the failing prompt before and after. The own mean
leaves out the image of the same seed, so that base and corrected images are judged by the same rule. The damage is the drop
of the share of recognised images.

The gate counts the images that are recognised before and not after, in two extractors (`measures.lost_images`);
`tests/evaluation/measure_protocol.py` measures how often it finds images that turn into the corrected prompt. It may miss
images that turn into an anomaly, because an anomaly may still look most like its own prompt: that needs a judge of images. A
prompt that looks like another one has a low share in the base already.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GuardImages:
    """Images of one guard prompt; row i of both tensors has the same seed.

    Attributes:
        prompt: The guard prompt.
        base: `[G, 3, H, W]` in 0..1, without the adapter.
        corrected: `[G, 3, H, W]` in 0..1, with it.
    """

    prompt: str
    base: Tensor
    corrected: Tensor


@dataclass(frozen=True)
class Recognised:
    """Which images of one guard prompt are recognised as its own, and how far they moved.

    Attributes:
        base: `[G]`, 1 where a base image is recognised.
        corrected: `[G]`, 1 where a corrected image is recognised.
        change: Mean feature distance of before to after, over the mean distance of two base images of the
            prompt; None for a single image.
    """

    base: Tensor
    corrected: Tensor
    change: float | None


def recognised(
    base: Sequence[Tensor], corrected: Sequence[Tensor], others: Sequence[Tensor]
) -> list[Recognised]:
    """Which images of each guard prompt are recognised as its own.

    Args:
        base: Features `[G, d]` of each guard prompt's base images.
        corrected: Features `[G, d]` of the corrected images of the same seeds.
        others: Features `[n, d]` of the failing prompt before and after: what a guard image may turn into.
    """
    means = torch.stack([features.double().mean(0) for features in (*base, *others)])
    found = []
    for own, (before, after) in enumerate(zip(base, corrected, strict=True)):
        before, after = before.double(), after.double()
        found.append(
            Recognised(
                base=_recognise(before, before, means, own),
                corrected=_recognise(after, before, means, own),
                change=_change(before, after),
            )
        )
    return found


def _recognise(images: Tensor, twins: Tensor, means: Tensor, own: int) -> Tensor:
    """Whether each of `images` `[G, d]` is nearest to the mean of `twins` `[G, d]` less its own twin."""
    count = len(twins)
    own_means = (twins.sum(0) - twins) / (count - 1) if count > 1 else twins
    to_own = (images - own_means).norm(dim=1)
    to_others = torch.cdist(images, means)
    to_others[:, own] = float("inf")
    return (to_own < to_others.amin(1)).double()


def _change(before: Tensor, after: Tensor) -> float | None:
    if len(before) < 2:
        return None
    typical = torch.pdist(before).mean()
    return float((before - after).norm(dim=1).mean() / typical.clamp_min(1e-12))
