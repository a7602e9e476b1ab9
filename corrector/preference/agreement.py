"""Agreement of two sources of verdicts on the same pairs, such as people and a vision-language judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from corrector.evaluation.scorecard_figures import Interval
from corrector.evaluation.verdicts import mcnemar_p, right_share
from corrector.preference.sign_flips import Numbers
from corrector.preference.survey import Choice, SurveyModel

CHOICES: tuple[Choice, ...] = ("a", "b", "both bad")
_RESAMPLES = 10_000


class Trust(SurveyModel):
    """Whether a source's verdicts may decide, or only advise."""

    status: Literal["trusted", "advisory"]
    reason: str


class Agreement(SurveyModel):
    """How far two sources agree on the pairs of which both have a verdict."""

    pairs: int
    confusion: tuple[tuple[int, ...], ...]
    """Pairs by the first source's verdict (rows) and the second's (columns), both in the order of `CHOICES`."""
    agreement: Interval | None
    """Share of pairs with the same verdict, with Wilson's interval."""
    kappa: Interval | None
    """Cohen's kappa (1960), with a bootstrap over pairs; None where both sources gave one and the same verdict only."""
    mcnemar_p: float
    """Two-sided exact p that both choose "b" equally often, of the pairs on which both chose an arm (McNemar 1947)."""

    def trusted(self, kappa: float, pairs: int) -> Trust:
        """Trusted from this `kappa` on this many `pairs` on, else advisory."""
        if self.pairs < pairs:
            return Trust(
                status="advisory", reason=f"both have a verdict on {self.pairs} pairs; {pairs} are needed"
            )
        if self.kappa is None:
            return Trust(status="advisory", reason="kappa is not defined: all verdicts are the same")
        seen = f"kappa {self.kappa.value:.2f} [{self.kappa.low:.2f}, {self.kappa.high:.2f}] on {self.pairs} pairs"
        if self.kappa.value < kappa:
            return Trust(status="advisory", reason=f"{seen}; {kappa:g} is needed")
        return Trust(status="trusted", reason=f"{seen}; at least {kappa:g} on {pairs} was asked for")


def agreement(first: Mapping[str, Choice], second: Mapping[str, Choice], *, seed: int = 0) -> Agreement:
    """Agreement of two mappings from pair to verdict; pairs that one of them lacks are left out."""
    common = sorted(first.keys() & second.keys())
    counts = np.zeros((3, 3), dtype=int)
    for pair in common:
        counts[CHOICES.index(first[pair]), CHOICES.index(second[pair])] += 1
    decided = [pair for pair in common if "both bad" not in (first[pair], second[pair])]
    prefers_b = [[source[pair] == "b" for pair in decided] for source in (first, second)]
    return Agreement(
        pairs=len(common),
        confusion=tuple(map(tuple, counts.tolist())),
        agreement=right_share([first[pair] == second[pair] for pair in common]) if common else None,
        kappa=_kappa_interval(counts, seed),
        mcnemar_p=min(1.0, 2 * min(mcnemar_p(*prefers_b), mcnemar_p(*reversed(prefers_b)))),
    )


def flip_rate(orders: Mapping[str, tuple[Choice, Choice]]) -> Interval | None:
    """Share of pairs on which a judge's verdict changes with the order of the images, with Wilson's interval.

    Args:
        orders: By pair, the verdicts with arm "a" first and with arm "b" first; both name arms, not places.
    """
    return right_share([one != other for one, other in orders.values()]) if orders else None


def consistent_verdicts(orders: Mapping[str, tuple[Choice, Choice]]) -> dict[str, Choice]:
    """The verdicts of the pairs on which the order changed nothing."""
    return {pair: one for pair, (one, other) in orders.items() if one == other}


def _kappa_interval(counts: np.ndarray, seed: int, level: float = 0.95) -> Interval | None:
    """Kappa of a confusion table, with a percentile bootstrap over its pairs; resamples without a kappa are left out."""
    n = int(counts.sum())
    value = _kappa(counts[None])[0] if n else np.nan
    if np.isnan(value):
        return None
    tables = np.random.default_rng(abs(seed)).multinomial(n, counts.ravel() / n, _RESAMPLES).reshape(-1, 3, 3)
    low, high = np.nanquantile(_kappa(tables), [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        low=float(low),
        value=float(value),
        high=float(high),
        level=level,
        method="percentile bootstrap over pairs",
    )


def _kappa(tables: np.ndarray) -> Numbers:
    """Cohen's kappa of each of `tables` `[k, 3, 3]`; NaN where chance agrees always."""
    shares = tables / tables.sum((1, 2), keepdims=True)
    seen = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(1) * shares.sum(2)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1 - 1e-12, (seen - chance) / (1 - chance), np.nan)
