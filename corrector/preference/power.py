"""How many pairs a survey needs."""

from __future__ import annotations

import math

from corrector.preference.sign_flips import Numbers
from corrector.preference.survey import SurveyModel

_LEAST_PAIRS = 12


class Power(SurveyModel):
    """How many more pairs decide a question, each with as many votes as the pairs so far have."""

    pairs: int
    """Pairs with votes that count."""
    level: float
    """Two-sided level of the test."""
    power: float
    """Chance of finding the effect with that many pairs."""
    smallest_effect: float
    """Smallest mean score worth finding."""
    more_at_effect_seen: int | None
    """More pairs, if the true mean score is the one seen; 0: there are enough. None: the mean is 0."""
    more_at_smallest_effect: int | None
    """More pairs, if the true mean score is `smallest_effect`. None: scores spread too little for an effect as large."""


def survey_power(scores: Numbers, *, level: float, power: float, smallest_effect: float) -> Power:
    """Of pairs' `scores` `[n]`, each -1..1."""
    square = float((scores**2).mean()) if len(scores) else 0.0

    def more(effect: float) -> int | None:
        needed = pairs_needed(effect, square, level=level, power=power)
        return None if needed is None else max(0, needed - len(scores))

    return Power(
        pairs=len(scores),
        level=level,
        power=power,
        smallest_effect=smallest_effect,
        more_at_effect_seen=more(float(scores.mean())) if len(scores) else None,
        more_at_smallest_effect=more(smallest_effect),
    )


def pairs_needed(effect: float, mean_square: float, *, level: float, power: float) -> int | None:
    """Pairs with which the two-sided sign-flip test at `level` finds the mean score `effect` with probability `power`.

    The flips' variance is the mean of the squared scores, `mean_square`. That of the scores is less by the square of `effect`,
    which enters Guenther's formula for the t-test (1981, The American Statistician 35), the flips' companion for many pairs.

    Returns:
        At least 12, since the p of fewer pairs are too coarse for the formula; None where `effect` is 0 or larger than
        `mean_square` allows.
    """
    from scipy.special import ndtri

    variance = mean_square - effect**2
    if effect == 0 or variance < 0:
        return None
    tail, head = float(ndtri(1 - level / 2)), float(ndtri(power))
    n = (tail + head) ** 2 * variance / effect**2 + tail**2 / 2
    return max(_LEAST_PAIRS, math.ceil(n))
