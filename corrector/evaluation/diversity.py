"""Diversity of the images of one arm, and copies of training exemplars."""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import torch
from torch import Tensor

_ORDERS_AT_ONCE = 256


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


def nearest_other(features: Tensor) -> float:
    """Median over the rows of `features` `[n, d]` of the Euclidean distance to the nearest other row.

    Sets are compared at equal n: the distance falls as n grows. An arm that has collapsed onto a few pictures has its
    nearest other image at a distance near 0, where the mean pairwise distance still sees the few pictures differ.
    """
    distances = torch.cdist(features.double(), features.double())
    distances.fill_diagonal_(float("inf"))
    return float(distances.amin(1).median())


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


def training_preference(
    features: Tensor, training: Tensor, held_out: Tensor, *, permutations: int, seed: int
) -> float:
    """One-sided p of the test whether the images `[n, d]` prefer `training` `[m, d]` to `held_out` `[k, d]` exemplars.

    The statistic is the mean over the images of the distance to the nearest held-out exemplar less that to the nearest
    training exemplar. If the adapter has learnt the prompt and not its exemplars, training and held-out ones are
    exchangeable, so the labels are permuted: all choices of m of m + k where they are no more than `permutations`, else a
    sample. The smallest p is one over the number of choices: 1 / 70 for four of eight, 1 / 10 for three of five.
    """
    distances = torch.cdist(features.double(), torch.cat([training, held_out]).double())
    m, count = len(training), len(training) + len(held_out)
    if comb(count, m) <= permutations:
        choices = [[*chosen, *(set(range(count)) - set(chosen))] for chosen in combinations(range(count), m)]
        orders = torch.tensor(choices)  # the first choice is that of the training exemplars
    else:
        generator = torch.Generator().manual_seed(seed)
        sampled = torch.rand(permutations, count, generator=generator).argsort(1)
        orders = torch.cat([torch.arange(count)[None], sampled])
    preference = torch.empty(len(orders), dtype=torch.float64)
    for part in torch.arange(len(orders)).split(_ORDERS_AT_ONCE):
        permuted = distances[:, orders[part]]
        preference[part] = (permuted[..., m:].amin(-1) - permuted[..., :m].amin(-1)).mean(0)
    return float((preference >= preference[0] - 1e-12).double().mean())
