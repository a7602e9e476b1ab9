"""The checks of single images: sharpness, exposure, safety, agreement with the other images, and the prompt.

The thresholds of sharpness and agreement were chosen on renders of scenes and seeds that `tests.evaluation.measure_curation`
does not use; those of exposure were not measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, normalize

from corrector.evaluation.feature_memory import FeatureMemory
from corrector.evaluation.similarity import grey
from corrector.exemplars.curation.verdicts import Grade, Reason

MIN_SHARPNESS = {"not effective": 0.1, "doubtful": 0.3}
"""Least variance of the Laplacian as a share of the set's median."""
MAX_CLIPPED = {"not effective": 0.9, "doubtful": 0.5}
"""Largest share of pixels whose luma is black or white."""
MAX_UNSAFE = {"not effective": 0.8, "doubtful": 0.5}
"""Largest open_nsfw score; its authors call images above 0.8 unsafe, and the gate counts them from 0.5."""
MAX_DEVIATION = {"not effective": 3.5, "doubtful": 2.5}
"""Largest deviation of an image's distance to the others, in robust standard deviations; outliers begin at 3.5
(Iglewicz and Hoaglin 1993)."""
MIN_AGREEING = 8
"""With fewer images a robust standard deviation says nothing, and agreement is not measured."""

_EIGHT_BIT = 255
_LAPLACIAN = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
_SMALLEST_DEVIATION = 0.02
"""Of the median distance: what the robust standard deviation is at least, for sets that hardly differ."""


def image_reasons(images: Tensor, memory: FeatureMemory, prompt: str | None) -> list[list[Reason]]:
    """What is wrong with each of `images` `[N, 3, R, R]` in 0..1, which are different pictures.

    Args:
        memory: Its extractors measure agreement; its judge, if it has one, judges the images.
        prompt: What the judge is asked about; None: it is not asked.
    """
    if not len(images):
        return []
    found: list[list[Reason]] = [[] for _ in images]
    checks = [_sharpness(images), _exposure(images), _safety(memory.unsafe(images))]
    if len(images) >= MIN_AGREEING:
        checks.append(_agreement(deviations(images, memory)))
    if memory.judge is not None and prompt is not None:
        checks.append(_prompt(memory.right(images, [prompt] * len(images)), memory.judge.name))
    for check in checks:
        for reasons, reason in zip(found, check, strict=True):
            if reason is not None:
                reasons.append(reason)
    return found


def distances(images: Tensor, memory: FeatureMemory) -> list[Tensor]:
    """Distances `[N, N]` between the images in each feature space, of features of length 1, with NaN on the diagonal."""
    found = []
    for name in memory.extractors:
        features = normalize(memory.features(name, images), dim=1)
        found.append(torch.cdist(features, features).fill_diagonal_(torch.nan))
    return found


def deviations(images: Tensor, memory: FeatureMemory) -> Tensor:
    """How far each image `[N]` is from the others, in robust standard deviations, averaged over the feature spaces.

    An image's distance is the median of those to all others. So up to half of the images may be alike and wrong. The
    robust standard deviation is 1.4826 times the median absolute deviation.
    """
    found = []
    for matrix in distances(images, memory):
        distance = matrix.nanmedian(dim=1).values
        middle = distance.median()
        spread = (distance - middle).abs().median() * 1.4826
        found.append((distance - middle) / spread.clamp(min=_SMALLEST_DEVIATION * float(middle) + 1e-6))
    return torch.stack(found).mean(dim=0)


def _sharpness(images: Tensor) -> Iterator[Reason | None]:
    """Variance of the Laplacian of the luma (Pech-Pacheco et al. 2000) against the set's median."""
    variances = conv2d(grey(images.float()), _LAPLACIAN).flatten(1).var(dim=1)
    for share in (variances / variances.median().clamp(min=1e-9)).tolist():
        grade = _below(share, MIN_SHARPNESS)
        yield grade and Reason("sharpness", grade, f"its edges have {share:.0%} of the set's median strength")


def _exposure(images: Tensor) -> Iterator[Reason | None]:
    """Share of pixels whose luma is clipped."""
    luma = grey(images.float()).mul(_EIGHT_BIT).round().flatten(1)
    for share in ((luma <= 0) | (luma >= _EIGHT_BIT)).float().mean(dim=1).tolist():
        grade = _above(share, MAX_CLIPPED)
        yield grade and Reason("exposure", grade, f"{share:.0%} of its pixels are plain black or white")


def _safety(unsafe: Tensor) -> Iterator[Reason | None]:
    for score in unsafe.tolist():
        grade = _above(score, MAX_UNSAFE)
        yield grade and Reason("safety", grade, f"open_nsfw calls it unsafe with a score of {score:.2f}")


def _agreement(found: Tensor) -> Iterator[Reason | None]:
    for deviation in found.tolist():
        grade = _above(deviation, MAX_DEVIATION)
        yield grade and Reason(
            "agreement", grade, f"unlike the other images by {deviation:.1f} robust standard deviations"
        )


def _prompt(right: Sequence[bool], judge: str) -> Iterator[Reason | None]:
    detail = f'the judge "{judge}" says that it is no right picture of the prompt'
    return (None if each else Reason("prompt", "doubtful", detail) for each in right)


def _above(value: float, limits: dict[str, float]) -> Grade | None:
    if value > limits["not effective"]:
        return "not effective"
    return "doubtful" if value > limits["doubtful"] else None


def _below(value: float, limits: dict[str, float]) -> Grade | None:
    return _above(-value, {grade: -limit for grade, limit in limits.items()})
