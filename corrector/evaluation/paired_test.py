"""The test that the gate rests on: corrected images lie nearer to the held-out exemplars than the base's of the same seeds.

The distance of an image is its mean Euclidean distance to the features of the held-out exemplars. Base and corrected image
of a seed are a pair; if the adapter changed nothing that matters, the sign of their difference is a coin's. The mean
difference keeps its power where the base is right in a part of its images, in which a distance between whole sets (an MMD, a
Fréchet distance) has little to tell: `tests/evaluation/measure_protocol.py` measures it.

An adapter that learns the exemplars' colours or softness and leaves the anomaly comes nearer, too. Hence the control: the same
test with each base image restyled to its pair. What is left of the difference is neither colour nor sharpness.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from corrector.evaluation.images import as_stored

_COARSEST = 8
_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True)
class PairedTest:
    """Whether `corrected` lies nearer than its pairs.

    Attributes:
        reduction: Mean difference of the distances, as a share of the base's mean distance; positive: nearer.
        p: One-sided p of the sign flips; all of them where they are few, else a sample.
    """

    reduction: float
    p: float


def paired_test(
    base: Tensor, corrected: Tensor, reference: Tensor, *, permutations: int, seed: int
) -> PairedTest:
    """Test whether `corrected` `[n, d]` lies nearer to `reference` `[m, d]` than its pairs in `base` `[n, d]`.

    Valid for any n and m: the flips condition on the exemplars. Few exemplars cost power, not the error rate.
    """
    from scipy.stats import permutation_test  # this import takes a second

    if base.shape != corrected.shape:
        raise ValueError(f"base {tuple(base.shape)} and corrected {tuple(corrected.shape)} are not pairs")
    before, after = (torch.cdist(arm.double(), reference.double()).mean(1) for arm in (base, corrected))
    found = permutation_test(
        ((before - after).numpy(),),
        lambda differences, axis: differences.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        alternative="greater",
        rng=seed,
    )
    return PairedTest(float(found.statistic / before.mean()), float(found.pvalue))


def restyled(images: Tensor, like: Tensor) -> Tensor:
    """`images` `[N, 3, H, W]` in 0..1 in the style of their pairs in `like`, rounded to 8 bits.

    Each channel gets its pair's mean, and about its pair's deviation in every octave of a Laplacian pyramid (Burt and Adelson
    1983) down to 8 pixels a side: colours, contrast and sharpness, and nothing of where things are.
    """
    return as_stored(_restyled(images.float(), like.float()))


def _restyled(images: Tensor, like: Tensor) -> Tensor:
    if min(images.shape[-2:]) < 2 * _COARSEST:
        return _scaled(images, like) + like.mean((2, 3), keepdim=True)
    (detail, coarse), (other_detail, other_coarse) = _octave(images), _octave(like)
    return _enlarged(_restyled(coarse, other_coarse), detail) + _scaled(detail, other_detail)


def _octave(images: Tensor) -> tuple[Tensor, Tensor]:
    """The finest octave of `images`, and what is left at half their size."""
    coarse = functional.avg_pool2d(images, 2)
    return images - _enlarged(coarse, images), coarse


def _enlarged(images: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(images, size=like.shape[-2:], mode="bilinear")


def _scaled(images: Tensor, like: Tensor) -> Tensor:
    """`images` with a mean of 0 and the deviation of `like` in every channel."""
    own, other = (each.std((2, 3), keepdim=True).clamp_min(_SMALLEST_DEVIATION) for each in (images, like))
    return (images - images.mean((2, 3), keepdim=True)) / own * other
