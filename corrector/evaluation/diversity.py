"""Whether a correction still draws different pictures, and whether they copy its training exemplars."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Nearness:
    """Distances `[n]` of one arm's images to their nearest training exemplar.

    Attributes:
        near: Share of them below the bound.
        median: Of the distances.
        training: Share of images whose nearest exemplar of all is a training one.
    """

    near: float
    median: float
    training: float


@dataclass(frozen=True)
class ExemplarSpacing:
    """Median and `bound` of the distances from exemplars to the nearest other training exemplar."""

    bound: float
    median: float


def mean_pairwise_distance(features: Tensor) -> float:
    """Mean Euclidean distance between two different rows of `features` `[n, d]`, without bias in n.

    This one gates and SSIM inside the set does not: true scenes measured against broken ones of the same
    prompt kept 0.79 to 0.82 of 1 - SSIM whichever the prompt, while collapse onto four pictures kept 0.72 to
    0.84 of that.
    """
    distances = torch.cdist(features.double(), features.double())
    n = len(features)
    return float(distances.sum() / (n * (n - 1)))


def exemplar_spacing(training: Tensor, held_out: Tensor, percentile: float) -> ExemplarSpacing:
    """How near exemplars come to a training exemplar other than themselves.

    Args:
        training: Features `[m, d]`, m at least 2.
        held_out: Features `[k, d]`, k at least 0.
        percentile: The bound leaves the (100 - percentile) % nearest exemplars below it.
    """
    among = torch.cdist(training.double(), training.double())
    among.fill_diagonal_(float("inf"))
    nearest = torch.cat([among, torch.cdist(held_out.double(), training.double())]).amin(1)
    return ExemplarSpacing(float(nearest.quantile(1 - percentile / 100)), float(nearest.median()))


def nearness(features: Tensor, training: Tensor, held_out: Tensor, bound: float) -> Nearness:
    """How near the images of `features` `[n, d]` come to `training` `[m, d]` and `held_out` `[k, d]`."""
    to_training = torch.cdist(features.double(), training.double()).amin(1)
    to_held_out = torch.cdist(features.double(), held_out.double())
    nearer = to_training[:, None] < to_held_out
    return Nearness(
        near=float((to_training < bound).double().mean()),
        median=float(to_training.median()),
        training=float(nearer.all(1).double().mean()),
    )
