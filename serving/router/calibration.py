"""From a head's scores to a probability, and the threshold that holds its precision."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from serving.router.logistic import Vector, fit_logistic

REFUSED = -1e6
"""A logit that no threshold lets through."""


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it does on the calibration prompts.

    Attributes:
        threshold: Smallest logit that is accepted.
        accepted: Paraphrases at or above it; `paraphrases`: all of them.
        wrong: Hard negatives at or above it; `negatives`: all of them.
        bound: Lower bound of the precision, Wilson, 95 %.
    """

    threshold: float
    accepted: int
    paraphrases: int
    wrong: int
    negatives: int
    bound: float


def wilson_lower_bound(successes: int, trials: int, z: float = 1.959964) -> float:
    """Lower end of the Wilson score interval of a share (Wilson 1927); 0 without trials."""
    if trials == 0:
        return 0.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, (centre - spread) / (1 + z * z / trials))


def platt(scores: Vector, doubts: Vector, labels: Vector, ridge: float = 1e-3) -> tuple[float, Vector, float]:
    """Slope of `scores` `[N]`, weights of the word counts `doubts` `[N, D]`, and bias, that make logits of them (Platt 1999).

    More words that may mean something else never make it likelier that a prompt means the same: the weights are at most 0.
    """
    kept = [column for column in range(doubts.shape[1]) if doubts[:, column].any()]
    while True:
        weights, bias = fit_logistic(np.column_stack([scores, doubts[:, kept]]), labels, ridge)
        rising = [column for column, weight in zip(kept, weights[1:], strict=True) if weight > 0]
        if not rising:
            break
        kept = [column for column in kept if column not in rising]
    # What no calibration prompt has weighs as much as a contradiction.
    found = np.where(doubts.any(axis=0), 0.0, REFUSED)
    found[kept] = weights[1:]
    return float(weights[0]), found, bias


def calibrate(paraphrases: Vector, negatives: Vector, min_precision: float) -> Calibration | None:
    """The smallest threshold whose precision has a Wilson lower bound of at least `min_precision`; None if none has.

    Args:
        paraphrases: Logits of prompts that mean the same; around `REFUSED` for those that are refused whatever they score.
        negatives: Logits of prompts that do not, likewise.
    """
    for threshold in np.unique(paraphrases[paraphrases > REFUSED / 2]):
        accepted = int((paraphrases >= threshold).sum())
        wrong = int((negatives >= threshold).sum())
        bound = wilson_lower_bound(accepted, accepted + wrong)
        if bound >= min_precision:
            return Calibration(float(threshold), accepted, len(paraphrases), wrong, len(negatives), bound)
    return None
