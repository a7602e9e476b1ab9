"""SequentialTest: Wilson intervals of a failure rate, looked at after every block of images, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from corrector.evaluation.scorecard_figures import Interval

Verdict = Literal["fails", "holds", "undecided"]

MAX_ERROR = 0.05
"""Largest chance of a wrong verdict about one prompt."""
_Z = np.arange(1.0, 6.0, 0.01)
"""Quantiles of the normal distribution that are tried for the intervals."""


@dataclass(frozen=True)
class SequentialTest:
    """Tells whether a prompt's failure rate is above or below `fails_at`, with as few images as that needs.

    A look after every `block` verdicts ends the test if the Wilson interval (Wilson 1927) lies wholly above ("fails") or below
    ("holds") `fails_at`. Several looks err more often than one, and a Wilson interval is approximate. So all looks use the
    smallest quantile `z` with which the whole test, for a true rate of exactly `fails_at`, says "fails" with a probability of
    at most `MAX_ERROR`, and "holds", too. These two probabilities are computed exactly: by the binomial distribution of the
    failures in each block, over all paths that no look has ended. For any other true rate the wrong verdict is less likely,
    since fewer (more) failures end no path earlier at "fails" ("holds"). The bound is for each prompt, not for all together.

    Attributes:
        fails_at: The failure rate from which a prompt fails, between 0 and 1.
        images: Most verdicts, a multiple of `block`.
        block: Verdicts between two looks.
    """

    fails_at: float
    images: int
    block: int

    @property
    def z(self) -> float:
        """The quantile of the intervals."""
        return _smallest_z(self.fails_at, self.images, self.block)

    def interval(self, failed: int, n: int) -> Interval:
        """The share of failures with its interval, which is wider than one of 95 % for a single look would be."""
        low, high = wilson(failed, n, self.z)
        level = math.erf(self.z / math.sqrt(2))
        return Interval(low=low, value=failed / n, high=high, level=level, method="Wilson's, for all looks")

    def verdict(self, failures: list[bool]) -> Verdict:
        """The verdict of the first look that has one; `failures` are in the order in which they were drawn."""
        for n in range(self.block, min(len(failures), self.images) + 1, self.block):
            low, high = wilson(sum(failures[:n]), n, self.z)
            if low > self.fails_at:
                return "fails"
            if high < self.fails_at:
                return "holds"
        return "undecided"


def wilson(failed: int, n: int, z: float) -> tuple[float, float]:
    """The bounds of Wilson's score interval of a share, `n` at least 1."""
    middle = (failed + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(failed * (n - failed) / n + z**2 / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def error_rates(fails_at: float, rate: float, images: int, block: int, z: float) -> tuple[float, float]:
    """The exact probabilities of "fails" and of "holds" where the true failure rate is `rate`."""
    step = np.array([math.comb(block, k) * rate**k * (1 - rate) ** (block - k) for k in range(block + 1)])
    paths, fails, holds = np.ones(1), 0.0, 0.0
    for n in range(block, images + 1, block):
        paths = np.convolve(paths, step)
        for failed in range(n + 1):
            low, high = wilson(failed, n, z)
            if low > fails_at:
                fails += float(paths[failed])
                paths[failed] = 0
            elif high < fails_at:
                holds += float(paths[failed])
                paths[failed] = 0
    return fails, holds


@cache
def _smallest_z(fails_at: float, images: int, block: int) -> float:
    for z in _Z.tolist():
        if max(error_rates(fails_at, fails_at, images, block, z)) <= MAX_ERROR:
            return z
    raise AssertionError("no interval of the table is wide enough")
