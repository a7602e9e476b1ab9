"""Logistic regression by Newton's method, for a few hundred rows and columns."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
_STEPS = 50
_TOLERANCE = 1e-6


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
    # The bias is not held back; the little keeps the system solvable where the classes are separable.
    penalty = np.append(np.full(features.shape[1], ridge), 1e-6)
    solution = np.zeros(rows.shape[1])
    for _ in range(_STEPS):
        probability = sigmoid(rows @ solution)
        gradient = rows.T @ (importance * (probability - labels)) + penalty * solution
        curvature = importance * np.maximum(probability * (1.0 - probability), 1e-9)
        step = np.linalg.solve((rows.T * curvature) @ rows + np.diag(penalty), gradient)
        # A step of full length may overshoot on separable data; no logit moves by more than ten at once.
        solution -= step * min(1.0, 10.0 / max(float(np.abs(rows @ step).max()), 1e-12))
        if np.abs(step).max() < _TOLERANCE:
            break
    return solution[:-1], float(solution[-1])
