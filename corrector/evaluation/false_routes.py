"""The harm of a false route: a router sends a hard negative through the adapter by mistake.

An image is recognised as for guard prompts (`corrector.evaluation.guards`), but the only other classes are the failing prompt
before and after: an image that turns into the corrected prompt counts as harm. Other hard negatives are not classes: a base
that does not know a word draws two of them alike, and the figures of one must not depend on which others were drawn. An image
that turns into something else changes only `change`. Training preserves guard prompts but not hard negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from torch import Tensor

from corrector.evaluation.guards import GuardImages
from corrector.evaluation.scorecard_figures import Interval
from corrector.prompts.variations import Difference

_METHOD = "Newcombe's for paired shares, over seed pairs"


@dataclass(frozen=True)
class HardNegativeImages(GuardImages):
    """Images of one hard negative; `difference` says how it differs from the corrected prompt."""

    difference: Difference


def paired_drop(before: Tensor, after: Tensor, level: float = 0.95) -> Interval:
    """The mean of `before` less that of `after` with its interval; both are `[n]` shares in 0..1, and row i of both is a pair.

    Newcombe (1998), Improved confidence intervals for the difference between binomial proportions based on paired data,
    Statistics in Medicine 17, method 10: the Wilson intervals of both shares, joined by their correlation. A bootstrap
    interval would have no width if no image is lost.
    """
    n = len(before)
    before, after = before.double(), after.double()
    one, other = float(before.mean()), float(after.mean())
    both, neither = float((before * after).sum()), float(((1 - before) * (1 - after)).sum())
    lost, won = float((before * (1 - after)).sum()), float(((1 - before) * after).sum())
    association = both * neither - lost * won
    if association > 0:
        association = max(association - n / 2, 0.0)  # the continuity correction
    spread = (one * (1 - one) * other * (1 - other)) ** 0.5 * n * n
    correlation = association / spread if spread > 0 else 0.0
    (low, high), (other_low, other_high) = (_wilson(share, n, level) for share in (one, other))

    def joined(mine: float, yours: float) -> float:
        return max(mine * mine - 2 * correlation * mine * yours + yours * yours, 0.0) ** 0.5

    below, above = joined(one - low, other_high - other), joined(other - other_low, high - one)
    value = one - other
    return Interval(low=value - below, value=value, high=value + above, level=level, method=_METHOD)


def _wilson(share: float, n: int, level: float) -> tuple[float, float]:
    """The score interval of a share of `n` (Wilson 1927).

    scipy.stats.binomtest refuses it: the shares are means over extractors, so `share * n` need not be whole.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = share + z * z / (2 * n)
    half = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
