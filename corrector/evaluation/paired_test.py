"""The test that the gate rests on: corrected images lie nearer to the held-out exemplars than the base's of the same seeds.

The distance of an image is its mean Euclidean distance to the features of the held-out exemplars. Base and corrected image
of a seed are a pair; if the adapter changed nothing that matters, the sign of their difference is a coin's. The mean
difference keeps its power where the base is right in a part of its images, in which a distance between whole sets (an MMD, a
Fréchet distance) has little to tell: `tests/evaluation/measure_protocol.py` measures it.

An adapter that learns the exemplars' colours or softness and leaves the anomaly comes nearer, too. Hence the control: the same
test with each base image restyled to its pair. What is left of the difference is neither colour nor sharpness.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from corrector.evaluation.images import as_stored

_RINGS = 16
_LEAST_POWER = 1e-9
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

    One filter, common to all pairs, gives `images` the power that `like` has in each ring of frequencies: sharpness and grain.
    A filter for each pair would follow what the pair shows, and its images lie farther from any exemplar than the pair does.
    Then each channel gets its pair's mean and deviation: colours and contrast. Nothing changes where things are.
    """
    images, like = images.float(), like.float()
    return as_stored(_scaled(_filtered(images, like), like) + like.mean((2, 3), keepdim=True))


def _filtered(images: Tensor, like: Tensor) -> Tensor:
    """`images` without their means and with the power of `like` in every ring of the cosine transform, which sees no edges."""
    from scipy.fft import dctn, idctn

    spectrum, other = (dctn(each.double().numpy(), axes=(2, 3), norm="ortho") for each in (images, like))
    frequency = np.hypot(*np.ix_(*(np.arange(size) / size for size in images.shape[2:])))
    ring = np.minimum(frequency * _RINGS, _RINGS - 1).astype(int).ravel()[1:]
    count, centre, power, wanted = (
        np.bincount(ring, values.ravel()[1:], minlength=_RINGS)
        for values in (np.ones_like(frequency), frequency, *((s**2).mean((0, 1)) for s in (spectrum, other)))
    )
    some = count > 0
    gain = np.sqrt((wanted[some] + _LEAST_POWER) / (power[some] + _LEAST_POWER))
    filtered = spectrum * np.interp(frequency, centre[some] / count[some], gain)
    filtered[..., 0, 0] = 0  # the mean
    return torch.from_numpy(idctn(filtered, axes=(2, 3), norm="ortho")).float()


def _scaled(images: Tensor, like: Tensor) -> Tensor:
    """`images`, whose mean is 0, with the deviation of `like` in every channel."""
    own, other = (each.std((2, 3), keepdim=True).clamp_min(_SMALLEST_DEVIATION) for each in (images, like))
    return images / own * other
