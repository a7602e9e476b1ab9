"""Diversity of the images of one arm, and their nearness to training exemplars."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Nearness:
    """Distances of one arm's images to their nearest training exemplar.

    Attributes:
        near: Share of the distances below the bound.
        median: Median of the distances.
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

    The gate compares it with the smaller of base and exemplars. With the base alone it would refuse good
    corrections, because anomalies are diverse: correct scenes have 0.55 to 0.71 of the distance of broken scenes, and 0.79
    to 0.82 of their 1 - SSIM. A collapse to two pictures keeps 0.36 to 0.54 of the correct scenes' distance. A collapse to
    four keeps 0.77 to 0.88, which only the check for copies finds (`tests/benchmarks/protocol.py`).
    """
    distances = torch.cdist(features.double(), features.double())
    n = len(features)
    return float(distances.sum() / (n * (n - 1)))


def exemplar_spacing(training: Tensor, held_out: Tensor, percentile: float) -> ExemplarSpacing:
    """Distances of exemplars to the nearest training exemplar other than themselves.

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
    """Distances of the images of `features` `[n, d]` to the exemplars `training` `[m, d]` and `held_out` `[k, d]`."""
    to_training = torch.cdist(features.double(), training.double()).amin(1)
    to_held_out = torch.cdist(features.double(), held_out.double())
    nearer = to_training[:, None] < to_held_out
    return Nearness(
        near=float((to_training < bound).double().mean()),
        median=float(to_training.median()),
        training=float(nearer.all(1).double().mean()),
    )
