"""Thresholds hold their precision; probabilities are calibrated."""

import numpy as np
import pytest

from serving.router.calibration import REFUSED, calibrate, fit_logistic, platt, sigmoid, wilson_lower_bound


@pytest.mark.parametrize(
    ("successes", "trials", "bound"),
    # R: binom::binom.wilson and Wilson 1927's formula by hand.
    [(0, 0, 0.0), (0, 10, 0.0), (5, 10, 0.2366), (10, 10, 0.7225), (93, 93, 0.9603), (98, 100, 0.9300)],
)
def test_wilson_lower_bound(successes: int, trials: int, bound: float) -> None:
    assert wilson_lower_bound(successes, trials) == pytest.approx(bound, abs=5e-5)


def test_the_threshold_is_the_smallest_that_reaches_the_precision() -> None:
    paraphrases = np.arange(300) / 100.0
    negatives = np.array([0.995, 0.495, -1.0, REFUSED])
    found = calibrate(paraphrases, negatives, 0.98)
    assert found is not None
    # 250 of 251 are too few above 0.495, 200 of 200 above 0.995 are enough.
    assert wilson_lower_bound(250, 251) < 0.98 < wilson_lower_bound(200, 200)
    assert found.threshold == 1.0
    assert (found.accepted, found.wrong, found.paraphrases, found.negatives) == (200, 0, 300, 4)
    assert found.bound == wilson_lower_bound(200, 200)


def test_no_threshold_where_negatives_score_as_high_or_paraphrases_are_few() -> None:
    scores = np.linspace(-1, 1, 200)
    assert calibrate(scores, scores, 0.9) is None
    assert calibrate(np.ones(50), np.zeros(500), 0.96) is None
    assert calibrate(np.full(200, REFUSED), np.zeros(10), 0.9) is None


def test_logistic_weights_are_a_minimum_of_the_balanced_penalised_loss() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 5))
    labels = (features @ [2.0, -1.0, 0.0, 0.0, 0.5] + rng.normal(size=300) > 1.0).astype(float)
    weights, bias = fit_logistic(features, labels, ridge=0.3)
    importance = np.where(labels == 1, 150 / labels.sum(), 150 / (300 - labels.sum()))
    residual = importance * (sigmoid(features @ weights + bias) - labels)
    np.testing.assert_allclose(features.T @ residual + 0.3 * weights, 0.0, atol=1e-4)
    assert residual.sum() == pytest.approx(0.0, abs=1e-4)


def test_separable_classes_have_finite_weights() -> None:
    features = np.array([[-1.0], [-2.0], [1.0], [2.0]])
    weights, bias = fit_logistic(features, np.array([0.0, 0.0, 1.0, 1.0]), ridge=1e-3)
    assert np.isfinite(weights).all()
    assert np.isfinite(bias)
    assert weights[0] > 0


def test_doubts_never_raise_a_logit_and_unseen_ones_refuse() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([1.0, 0.0], 100)
    scores = labels * 2 + rng.normal(size=200)
    # The first counts with the paraphrases, the second with the negatives, the third never.
    doubts = np.stack([labels, 1 - labels, np.zeros(200)], axis=1) * (rng.random((200, 1)) < 0.5)
    slope, weights, _ = platt(scores, doubts, labels)
    assert slope > 0
    assert weights[0] == 0.0
    assert weights[1] < 0.0
    assert weights[2] == REFUSED
