"""Logistic regression, calibrated probabilities (Platt), and the threshold that reaches a precision."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
_STEPS = 50
_TOLERANCE = 1e-6

REFUSED = -1e6
"""A logit below every threshold."""


def sigmoid(logits: Vector) -> Vector:
    """The logistic function, without overflow."""
    positive: Vector = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return positive


def fit_logistic(features: Vector, labels: Vector, ridge: float) -> tuple[Vector, float]:
    """Weights `[D]` and bias that minimise balanced log loss plus `ridge / 2 * |weights|^2`.

    Iteratively reweighted least squares (Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 4.4.1). Both
    classes weigh the same, N / 2, however many rows each has.

    Args:
        features: `[N, D]`.
        labels: `[N]`, 0 or 1, both present.
    """
    rows = np.hstack([features, np.ones((len(features), 1))])
    share = np.where(labels == 1, labels.sum(), len(labels) - labels.sum())
    importance = len(labels) / (2.0 * share)
    # The bias has no ridge; 1e-6 keeps the system solvable where the classes are separable.
    penalty = np.append(np.full(features.shape[1], ridge), 1e-6)
    solution = np.zeros(rows.shape[1])
    for _ in range(_STEPS):
        probability = sigmoid(rows @ solution)
        gradient = rows.T @ (importance * (probability - labels)) + penalty * solution
        curvature = importance * np.maximum(probability * (1.0 - probability), 1e-9)
        step = np.linalg.solve((rows.T * curvature) @ rows + np.diag(penalty), gradient)
        # A full step may overshoot on separable data, so a step changes a logit by at most ten.
        solution -= step * min(1.0, 10.0 / max(float(np.abs(rows @ step).max()), 1e-12))
        if np.abs(step).max() < _TOLERANCE:
            break
    return solution[:-1], float(solution[-1])


@dataclass(frozen=True)
class Calibration:
    """A threshold and its results on the calibration prompts.

    Attributes:
        threshold: Smallest logit that is accepted.
        accepted: Number of accepted paraphrases, of `paraphrases`.
        wrong: Number of accepted hard negatives, of `negatives`.
        bound: Wilson 95 % lower bound of the precision.
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
    """Slope of `scores` `[N]`, weights of the word counts `doubts` `[N, D]`, and bias of a calibrated logit (Platt 1999).

    The weights are at most 0, so that a doubtful word does not raise the probability.
    """
    kept = [column for column in range(doubts.shape[1]) if doubts[:, column].any()]
    while True:
        weights, bias = fit_logistic(np.column_stack([scores, doubts[:, kept]]), labels, ridge)
        rising = [column for column, weight in zip(kept, weights[1:], strict=True) if weight > 0]
        if not rising:
            break
        kept = [column for column in kept if column not in rising]
    # Words of a kind that no calibration prompt has are refused like a contradiction.
    found = np.where(doubts.any(axis=0), 0.0, REFUSED)
    found[kept] = weights[1:]
    return float(weights[0]), found, bias


def calibrate(paraphrases: Vector, negatives: Vector, min_precision: float) -> Calibration | None:
    """The smallest threshold whose precision has a Wilson lower bound of at least `min_precision`; None if none has.

    Args:
        paraphrases: Logits of prompts with the same meaning; about `REFUSED` for contradictions.
        negatives: Logits of prompts with another meaning, likewise.
    """
    for threshold in np.unique(paraphrases[paraphrases > REFUSED / 2]):
        accepted = int((paraphrases >= threshold).sum())
        wrong = int((negatives >= threshold).sum())
        bound = wilson_lower_bound(accepted, accepted + wrong)
        if bound >= min_precision:
            return Calibration(float(threshold), accepted, len(paraphrases), wrong, len(negatives), bound)
    return None
