"""Agreement of two sources of verdicts on the same pairs, such as people and a vision-language judge."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from corrector.detectors.trust import Trust
from corrector.evaluation.scorecard_figures import Interval
from corrector.evaluation.verdicts import mcnemar_p, right_share
from corrector.preference.sign_flips import Numbers
from corrector.preference.survey import Choice, SurveyModel

CHOICES: tuple[Choice, ...] = ("a", "b", "both bad")
_RESAMPLES = 10_000


class Agreement(SurveyModel):
    """How far two sources agree on the pairs of which both have a verdict."""

    pairs: int
    labels: tuple[str, ...] = CHOICES
    """What a verdict can be."""
    confusion: tuple[tuple[int, ...], ...]
    """Number of verdicts by the first source (rows) and by the second (columns), both in the order of `labels`."""
    agreement: Interval | None
    """Share of verdicts that are the same, with Wilson's interval, which takes the images of a pair as independent."""
    kappa: Interval | None
    """Cohen's kappa (1960), with a bootstrap over pairs; None where both sources gave one and the same verdict only."""
    mcnemar_p: float
    """Two-sided exact p that both choose "b" equally often, of the pairs on which both chose an arm (McNemar 1947); for
    single images, that both call as many right."""

    def trusted(self, kappa: float, pairs: int) -> Trust:
        """Trusted from this `kappa` on this many `pairs` on, else advisory."""
        seen = "kappa is not defined" if self.kappa is None else f"kappa {self.kappa.value:.2f}"
        enough = self.kappa is not None and self.kappa.value >= kappa and self.pairs >= pairs
        reason = f"{seen} on {self.pairs} pairs; {kappa:g} on {pairs} wanted"
        return Trust(status="trusted" if enough else "advisory", reason=reason)


def agreement(first: Mapping[str, Choice], second: Mapping[str, Choice], *, seed: int = 0) -> Agreement:
    """Agreement of two mappings from pair to verdict; pairs that one of them lacks are left out."""
    common = sorted(first.keys() & second.keys())
    tables = np.zeros((len(common), 3, 3), dtype=int)
    for table, pair in zip(tables, common, strict=True):
        table[CHOICES.index(first[pair]), CHOICES.index(second[pair])] = 1
    decided = [pair for pair in common if "both bad" not in (first[pair], second[pair])]
    return _agreement(
        tables,
        CHOICES,
        _mcnemar(*([source[pair] == "b" for pair in decided] for source in (first, second))),
        seed,
    )


def image_agreement(
    people: Mapping[str, Choice], judge: Mapping[str, tuple[bool, bool]], *, seed: int = 0
) -> Agreement:
    """Agreement of people and a judge of single images, on both images of each pair that both have judged.

    People compare and do not judge single images. An image counts as right if people prefer it, else as wrong. That is
    conservative: of two right images people call one wrong, so a judge who is right about both disagrees with them, and kappa
    is lower than if people had been asked about each image.

    Args:
        people: Verdicts on pairs: the arm that a majority prefers, or "both bad".
        judge: Whether the images of arm "a" and of arm "b" are right.
    """
    common = sorted(people.keys() & judge.keys())
    tables = np.zeros((len(common), 2, 2), dtype=int)
    verdicts: tuple[list[bool], list[bool]] = ([], [])
    for table, pair in zip(tables, common, strict=True):
        for arm, right in zip(("a", "b"), judge[pair], strict=True):
            preferred = people[pair] == arm
            table[int(not preferred), int(not right)] += 1
            verdicts[0].append(preferred)
            verdicts[1].append(right)
    return _agreement(tables, ("right", "wrong"), _mcnemar(*verdicts), seed)


def _agreement(tables: np.ndarray, labels: tuple[str, ...], mcnemar: float, seed: int) -> Agreement:
    """Of each pair's verdicts `tables` `[pairs, k, k]`."""
    counts = tables.sum(0)
    same = np.repeat([True, False], [np.trace(counts), counts.sum() - np.trace(counts)]).tolist()
    return Agreement(
        pairs=len(tables),
        labels=labels,
        confusion=tuple(map(tuple, counts.tolist())),
        agreement=right_share(same) if same else None,
        kappa=_kappa_interval(tables, seed),
        mcnemar_p=mcnemar,
    )


def _mcnemar(first: list[bool], second: list[bool]) -> float:
    """Two-sided."""
    return min(1.0, 2 * min(mcnemar_p(first, second), mcnemar_p(second, first)))


def flip_rate(orders: Mapping[str, tuple[Choice, Choice]]) -> Interval | None:
    """Share of pairs on which a judge's verdict changes with the order of the images, with Wilson's interval.

    Args:
        orders: By pair, the verdicts with arm "a" first and with arm "b" first; both name arms, not places.
    """
    return right_share([one != other for one, other in orders.values()]) if orders else None


def consistent_verdicts(orders: Mapping[str, tuple[Choice, Choice]]) -> dict[str, Choice]:
    """The verdicts of the pairs on which the order changed nothing."""
    return {pair: one for pair, (one, other) in orders.items() if one == other}


def _kappa_interval(tables: np.ndarray, seed: int, level: float = 0.95) -> Interval | None:
    """Kappa of the sum of `tables` `[pairs, k, k]`, with a percentile bootstrap over pairs; resamples without a kappa are
    left out."""
    n = len(tables)
    value = _kappa(tables.sum(0, keepdims=True))[0] if n else np.nan
    if np.isnan(value):
        return None
    kinds, counts = np.unique(tables, axis=0, return_counts=True)
    drawn = np.random.default_rng(abs(seed)).multinomial(n, counts / n, _RESAMPLES)
    resampled = np.tensordot(drawn, kinds, axes=1)
    low, high = np.nanquantile(_kappa(resampled), [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        low=float(low),
        value=float(value),
        high=float(high),
        level=level,
        method="percentile bootstrap over pairs",
    )


def _kappa(tables: np.ndarray) -> Numbers:
    """Cohen's kappa of each of `tables` `[n, k, k]`; NaN where chance agrees always."""
    shares = tables / tables.sum((1, 2), keepdims=True)
    seen = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(1) * shares.sum(2)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1 - 1e-12, (seen - chance) / (1 - chance), np.nan)
