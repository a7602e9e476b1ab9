"""The sign-flip test: if neither arm is better, the sign of a pair's score is a coin's.

Flips take a whole pair, with all its votes, so the test is right however strongly the votes on one pair depend on each other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FLIPS = 5_000
_ENUMERATED = 12

Numbers = npt.NDArray[np.float64]


def sign_flips(n: int, seed: int) -> Numbers:
    """Signs `[k, n]` of 1 and -1, the first row without a flip: all 2^n for up to 12 pairs, else `FLIPS` rows drawn at random.

    Where rows are drawn, the first counts as one of them, which keeps the error rate exact (Phipson and Smyth 2010).
    """
    if n <= _ENUMERATED:
        return (1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)).astype(np.float64)
    signs = np.random.default_rng(abs(seed)).integers(0, 2, (FLIPS, n), dtype=np.int8) * 2 - 1
    signs[0] = 1
    return signs.astype(np.float64)


def sign_flip_p(scores: Numbers, seed: int) -> float:
    """Two-sided p of pairs' `scores` `[n]`, symmetric about 0 if neither arm is better; 1 where all are 0."""
    nonzero = scores[scores != 0]
    sums = np.abs(sign_flips(len(nonzero), seed) @ nonzero)
    return float(np.mean(sums >= sums[0] - 1e-9))
