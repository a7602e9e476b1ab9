"""Distances between sets of features: Fréchet, kernel, and the interval of a difference.

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


def compare_frechet(
    base: Tensor, corrected: Tensor, reference: Tensor, *, resamples: int, seed: int, level: float = 0.95
) -> FrechetComparison:
    """Both arms' Fréchet distances to `reference`, with paired bootstrap intervals also of the difference.

    Pairs are drawn with replacement, the same pairs for both arms, and so are the exemplars, for both arms alike: the interval
    is over seeds and over exemplars like these. A resample holds about 63 % of the rows. This lowers the rank of its
    covariance and biases its distance; the bias nearly cancels in the difference of the arms. The interval of a single arm
    keeps the bias and is centred on the resamples. The intervals are percentile intervals; `tests/evaluation` measures how
    often that of the difference holds its mean.

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

    Pairs and references are drawn as in `compare_frechet`, separately for each of `compared`.
    """
    differences, drawn = [], []
    for number, sets in enumerate(compared):
        x, y, r = _pairs(*sets)
        differences.append(frechet_distance(y, r) - frechet_distance(x, r))
        before, after = _resampled(x, y, r, resamples, seed + number)
        drawn.append(after - before)
    return _interval(sum(differences) / len(differences), torch.stack(drawn).mean(0), level)


def _resampled(x: Tensor, y: Tensor, r: Tensor, resamples: int, seed: int) -> Tensor:
    """Both arms' distances `[2, resamples]` to `r`; each resample has the same rows of both arms and of `r` twice."""
    n, m = len(x), len(r)
    generator = torch.Generator().manual_seed(seed)
    grams = _Grams(x, r), _Grams(y, r)
    found = []
    for count in _chunks(resamples, (n + m) ** 2):
        rows = torch.randint(0, n, (count, n), generator=generator)
        references = torch.randint(0, m, (count, m), generator=generator)
        found.append(torch.stack([gram.distances(rows, references) for gram in grams]))
    return torch.cat(found, dim=1)


def _interval(value: float, resampled: Tensor, level: float) -> Interval:
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = resampled.quantile(tails).tolist()
    return Interval(low=low, value=value, high=high, level=level)


class _Grams:
    """Inner products of the rows of an arm and of the reference, which give the distances of all resamples."""

    def __init__(self, features: Tensor, reference: Tensor) -> None:
        shifted, centred = features - reference.mean(0), reference - reference.mean(0)
        self.own, self.cross, self.reference = shifted @ shifted.T, shifted @ centred.T, centred @ centred.T

    def distances(self, rows: Tensor, references: Tensor) -> Tensor:
        """Distances `[P]` of the resamples with the rows `[P, n]` and the references `[P, m]`."""
        n, m = rows.shape[1], references.shape[1]
        own, reference = _taken(self.own, rows, rows), _taken(self.reference, references, references)
        cross = _taken(self.cross, rows, references)
        shift = own.mean((1, 2)) - 2 * cross.mean((1, 2)) + reference.mean((1, 2))
        traces = sum(
            (gram.diagonal(dim1=1, dim2=2).mean(1) - gram.mean((1, 2))) * count / (count - 1)
            for gram, count in ((own, n), (reference, m))
        )
        centred = (
            cross
            - cross.mean(1, keepdim=True)
            - cross.mean(2, keepdim=True)
            + cross.mean((1, 2), keepdim=True)
        )
        square = centred.mT @ centred if m < n else centred @ centred.mT
        singular = torch.linalg.eigvalsh(square).clamp_min(0).sqrt().sum(1)
        return shift + traces - 2 * singular / ((n - 1) * (m - 1)) ** 0.5


def _taken(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The submatrices `[P, n, m]` of `matrix` with the rows `[P, n]` and the columns `[P, m]`."""
    return matrix[rows[:, :, None], columns[:, None, :]]


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
