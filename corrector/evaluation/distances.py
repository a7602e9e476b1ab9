"""Distances between sets of features: Fréchet, kernel, the relative-MMD test and the interval of a difference.

Every function takes features `[n, d]` of any float type and computes in float64. Rows of `base` and `corrected` are pairs:
the same prompt and seed, without and with the adapter. `n` is in the tens and `d` about a thousand, so the functions work on
the Gram matrices of the rows and form no matrix of size d x d.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from corrector.evaluation.scorecard_figures import Interval

_CHUNK = 4_000_000
"""Most float64 entries of one batch of resamples: 32 MB."""


class FrechetComparison(NamedTuple):
    """Fréchet distances of both arms to the same reference, and corrected minus base, with bootstrap intervals."""

    base: Interval
    corrected: Interval
    difference: Interval


class RelativeMMD(NamedTuple):
    """The relative-MMD permutation test.

    Attributes:
        statistic: Squared MMD of base to reference minus that of corrected to reference; positive: corrected is nearer.
        p: One-sided probability of a statistic at least as large if base and corrected of a pair were exchangeable.
    """

    statistic: float
    p: float


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Fréchet distance of normal fits to `features` `[n, d]` and `reference` `[m, d]` (Heusel et al. 2017).

    With A and B the centred features over sqrt(n - 1) and sqrt(m - 1), the trace of the square root of the
    product of the covariances is the sum of the singular values of A B', so that
    FID = |mean difference|^2 + |A|^2 + |B|^2 - 2 sum(svdvals(A B')): exact, and an [n, m] problem in place of [d, d].
    torchmetrics gives the same to 5e-4, but its eigenvalues of [d, d] take 4 s for the four distances of a prompt, against
    5 ms here (`python -m tests.benchmarks.metrics`), and a bootstrap needs thousands of distances.
    """
    x, y = _rows(features), _rows(reference)
    a = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    b = (y - y.mean(0)) / (len(y) - 1) ** 0.5
    shift = (x.mean(0) - y.mean(0)).square().sum()
    return float(shift + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum())


def kernel_distance(features: Tensor, reference: Tensor) -> float:
    """The unbiased squared MMD with the kernel (x.y / d + 1)^3, known as KID (Binkowski et al. 2018).

    torchmetrics takes equally many rows of both sides, so it draws random subsets of the larger side: its KID of 32 images
    and 8 exemplars is 0.009 away from the estimate of all rows (`python -m tests.benchmarks.metrics`).
    """
    x, y = _rows(features), _rows(reference)
    n, m = len(x), len(y)
    own, other = _kernel(x, x), _kernel(y, y)
    within = (own.sum() - own.trace()) / (n * (n - 1)) + (other.sum() - other.trace()) / (m * (m - 1))
    return float(within - 2 * _kernel(x, y).mean())


def relative_mmd(
    base: Tensor, corrected: Tensor, reference: Tensor, *, permutations: int, seed: int
) -> RelativeMMD:
    """Whether `corrected` `[n, d]` lies nearer to `reference` `[m, d]` than its pairs in `base` `[n, d]` do.

    The statistic is that of Bounliphone et al. 2016 (A Test of Relative Similarity For Model Selection in
    Generative Models, ICLR): T = MMD^2(base, reference) - MMD^2(corrected, reference), both unbiased, with
    the kernel of KID; the reference's own term cancels, and T is the difference of the two KIDs. Their
    asymptotic p needs n in the hundreds; here it comes from permutations within pairs. Swapping the arms of
    pair i turns its sign e_i, and T is linear in the signs,

        T(e) = sum_i e_i h_i,
        h_i  = sum_{j != i} [k(b_i, b_j) - k(c_i, c_j)] / (n (n - 1))
             + sum_j [k(b_i, c_j) - k(b_j, c_i)] / (n (n - 1)) - 2 / (n m) sum_j [k(b_i, r_j) - k(c_i, r_j)],

    so each permutation costs one dot product. p = (1 + #{T(e) >= T}) / (1 + permutations).
    """
    x, y, r = _pairs(base, corrected, reference)
    n, m = len(x), len(r)
    within_x, within_y, between = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    scores = within_x.sum(1) - within_x.diagonal() - within_y.sum(1) + within_y.diagonal()
    scores = (scores + between.sum(1) - between.sum(0)) / (n * (n - 1))
    scores = scores - 2 / (n * m) * (_kernel(x, r) - _kernel(y, r)).sum(1)
    statistic = scores.sum()
    slack = 1e-12 * (within_x.abs().mean() + within_y.abs().mean())  # so that rounding breaks no ties
    generator = torch.Generator().manual_seed(seed)
    as_large = 0
    for count in _chunks(permutations, n):
        signs = torch.randint(0, 2, (count, n), generator=generator).double().mul(2).sub(1)
        as_large += int((signs @ scores >= statistic - slack).sum())
    return RelativeMMD(float(statistic), (1 + as_large) / (1 + permutations))


def compare_frechet(
    base: Tensor, corrected: Tensor, reference: Tensor, *, resamples: int, seed: int, level: float = 0.95
) -> FrechetComparison:
    """Both arms' Fréchet distances to `reference`, with paired bootstrap intervals also of the difference.

    Pairs are drawn with replacement, the same pairs for both arms; the reference stays. A resample holds about 63 %
    of the pairs. This lowers the rank of its covariance and biases its distance; the bias nearly cancels in the
    difference of the arms. The intervals are percentile intervals: in `tests/benchmarks/protocol.py` that of the
    difference holds its mean in 92 to 100 % of draws at n = 16 and 32 (the basic interval: 88 to 100 %), and finds a
    quarter of repaired images more often at n = 16 (96 and 93 % in the two extractors, against 61 and 66 %). The
    interval of a single arm keeps the bias and is centred on the resamples. All are intervals over seeds, for these
    held-out exemplars.

    Args:
        base: `[n, d]`.
        corrected: `[n, d]`, row by row the pairs of `base`.
        reference: `[m, d]`.
        resamples: Bootstrap samples.
        seed: Seed of the resampling.
        level: Level of the two-sided intervals.
    """
    x, y, r = _pairs(base, corrected, reference)
    drawn = _resampled(x, y, r, resamples, seed)
    before, after = frechet_distance(x, r), frechet_distance(y, r)
    return FrechetComparison(
        _interval(before, drawn[0], level),
        _interval(after, drawn[1], level),
        _interval(after - before, drawn[1] - drawn[0], level),
    )


def mean_frechet_difference(
    compared: Sequence[tuple[Tensor, Tensor, Tensor]], *, resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """The mean over several (base, corrected, reference) of their Fréchet differences, and its interval.

    Pairs are drawn as in `compare_frechet`, separately for each of `compared`. The interval is over seeds and for these
    sets only.
    """
    differences, drawn = [], []
    for number, sets in enumerate(compared):
        x, y, r = _pairs(*sets)
        differences.append(frechet_distance(y, r) - frechet_distance(x, r))
        before, after = _resampled(x, y, r, resamples, seed + number)
        drawn.append(after - before)
    return _interval(sum(differences) / len(differences), torch.stack(drawn).mean(0), level)


def _resampled(x: Tensor, y: Tensor, r: Tensor, resamples: int, seed: int) -> Tensor:
    """Both arms' distances `[2, resamples]` to `r`; each resample has the same rows in both."""
    n = len(x)
    distances = _ResampledFrechet(x, r), _ResampledFrechet(y, r)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for count in _chunks(resamples, n * max(len(r), n)):
        rows = torch.randint(0, n, (count, n), generator=generator)
        found.append(torch.stack([each.of(rows) for each in distances]))
    return torch.cat(found, dim=1)


def _interval(value: float, resampled: Tensor, level: float) -> Interval:
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = resampled.quantile(tails).tolist()
    return Interval(low=low, value=value, high=high, level=level)


class _ResampledFrechet:
    """The Fréchet distances of resamples of one arm; the Gram matrices are computed once."""

    def __init__(self, features: Tensor, reference: Tensor) -> None:
        self.n, centre = len(features), reference.mean(0)
        spread = (reference - centre) / (len(reference) - 1) ** 0.5
        shifted = features - centre
        self.gram = shifted @ shifted.T
        self.cross = shifted @ spread.T
        self.reference_trace = spread.square().sum()

    def of(self, rows: Tensor) -> Tensor:
        """Distances `[P]` of the resamples; `rows` `[P, n]` are their row indices."""
        n = self.n
        weights = torch.zeros(len(rows), n, dtype=torch.float64)
        weights.scatter_add_(1, rows, torch.full(rows.shape, 1 / n, dtype=torch.float64))
        shift = ((weights @ self.gram) * weights).sum(1)
        trace = (weights @ self.gram.diagonal() - shift) * n / (n - 1)
        product = (self.cross[rows] - (weights @ self.cross).unsqueeze(1)) / (n - 1) ** 0.5
        square = product.mT @ product if product.shape[2] < n else product @ product.mT
        singular = torch.linalg.eigvalsh(square).clamp_min(0).sqrt().sum(1)
        return shift + trace + self.reference_trace - 2 * singular


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _rows(features: Tensor) -> Tensor:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features of shape {tuple(features.shape)}: expected [n, d] with n at least 2")
    return features.double()


def _pairs(base: Tensor, corrected: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if base.shape != corrected.shape:
        raise ValueError(f"base {tuple(base.shape)} and corrected {tuple(corrected.shape)} are not pairs")
    return _rows(base), _rows(corrected), _rows(reference)


def _chunks(total: int, entries: int) -> Iterator[int]:
    size = max(1, _CHUNK // entries)
    for start in range(0, total, size):
        yield min(size, total - start)
