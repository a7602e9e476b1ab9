"""The number of pairs that is asked for has the power that is stated."""

import numpy as np
import pytest

from corrector.preference.power import pairs_needed, survey_power
from corrector.preference.sign_flips import sign_flip_p

VALUES = np.array([-1, -1 / 3, 1 / 3, 1])


@pytest.mark.parametrize("weights", [(0.15, 0.2, 0.25, 0.4), (0.05, 0.05, 0.1, 0.8)])
def test_the_test_finds_the_effect_as_often_as_stated(weights: tuple[float, ...]) -> None:
    effect, square = float(VALUES @ weights), float(VALUES**2 @ weights)
    needed = pairs_needed(effect, square, level=0.05, power=0.8)
    assert needed is not None
    random = np.random.default_rng(1)

    found = [sign_flip_p(random.choice(VALUES, needed, p=weights), seed) <= 0.05 for seed in range(300)]

    assert np.mean(found) >= 0.74
    assert np.mean(found) <= 0.86 or needed == 12


def test_more_pairs_are_what_is_missing() -> None:
    scores = np.array([1.0, 0, -1, 1] * 5)
    all_needed = [pairs_needed(effect, 0.75, level=0.05, power=0.8) for effect in (0.25, 0.2)]
    assert None not in all_needed

    found = survey_power(scores, level=0.05, power=0.8, smallest_effect=0.2)

    assert [found.more_at_effect_seen, found.more_at_smallest_effect] == [n - 20 for n in all_needed if n]
    assert survey_power(np.ones(30), level=0.05, power=0.8, smallest_effect=0.2).more_at_effect_seen == 0


def test_no_number_is_named_that_cannot_be_known() -> None:
    none, equal, tiny = (
        survey_power(np.array(scores), level=0.05, power=0.8, smallest_effect=0.2)
        for scores in ([], [1.0, -1], [0.0] * 50 + [1.0])
    )

    assert (none.more_at_effect_seen, none.more_at_smallest_effect) == (None, None)
    assert equal.more_at_effect_seen is None
    assert equal.more_at_smallest_effect is not None
    assert tiny.more_at_smallest_effect is None


def test_a_dozen_pairs_are_the_least() -> None:
    """All twelve agree: p = 2/4096."""
    assert pairs_needed(1.0, 1.0, level=0.05, power=0.8) == 12
    assert sign_flip_p(np.ones(12), 0) == 2 / 4096
