"""The score of a trial, which a search minimises: its distance to the held-out exemplars, plus penalties for damage.

Distances are shares of the base's at the same seeds, so that scores of different rungs can be compared: 1 is as far from the
exemplars as the base, 0 is at the exemplars.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from corrector.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    mean_frechet_difference,
)
from corrector.evaluation.diversity import nearest_other
from corrector.evaluation.guards import recognised
from corrector.evaluation.paired_test import paired_test
from corrector.prompts import EvaluationSettings, GateThresholds, SearchSettings

_SMALLEST = 1e-12
_LEVEL = 0.95


@dataclass(frozen=True)
class SampleFeatures:
    """Features in one extractor of the images of one adapter or of the base.

    Attributes:
        own: `[n, d]` of the prompt's images.
        guards: `[g, d]` of the images of each guard prompt.
    """

    own: Tensor
    guards: tuple[Tensor, ...]

    @classmethod
    def of(
        cls, own: Tensor, guards: Sequence[Tensor], extract: Callable[[Tensor], Tensor]
    ) -> "SampleFeatures":
        """From images `[n, 3, H, W]` in 0..1, as they are stored."""
        return cls(extract(own), tuple(extract(images) for images in guards))


@dataclass(frozen=True)
class ExemplarFeatures:
    """Features of the exemplars in the same extractor: training `[m, d]`, and held-out `[k, d]` with k at least 2."""

    training: Tensor
    held_out: Tensor


class TrialScore(BaseModel):
    """A trial at one rung; `score` is what the search minimises."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    score: float
    """`distance` plus penalties for damage and for lost diversity."""
    distance: float
    """To the held-out exemplars by the search's objective, as a share of the base's."""
    fid: float
    fid_base: float
    kid: float
    kid_base: float
    damage: float
    """Share of guard images that the trial makes unrecognisable as their prompt's, at least 0."""
    diversity: float
    """Of the images, as a share of the base's."""
    n: int


def trial_score(
    base: SampleFeatures,
    trial: SampleFeatures,
    exemplars: ExemplarFeatures,
    search: SearchSettings,
    gate: GateThresholds,
) -> TrialScore:
    """The score of a trial; the rows of `trial` and `base` have the same prompts and seeds.

    Raises:
        ValueError: Some features are not finite (the trial diverged), or the arms are not pairs.
    """
    if not all(bool(torch.isfinite(features).all()) for features in (trial.own, *trial.guards)):
        raise ValueError("its images are not finite")
    fid, fid_base = (frechet_distance(each.own, exemplars.held_out) for each in (trial, base))
    kid, kid_base = (kernel_distance(each.own, exemplars.held_out) for each in (trial, base))
    distance = fid / max(fid_base, _SMALLEST) if search.objective == "fid" else kid / max(kid_base, _SMALLEST)
    damage = _damage(base, trial)
    diversity = nearest_other(trial.own) / max(nearest_other(base.own), _SMALLEST)
    return TrialScore(
        score=distance
        + search.damage_weight * damage
        + search.diversity_weight * max(0.0, gate.min_diversity - diversity),
        distance=distance,
        fid=fid,
        fid_base=fid_base,
        kid=kid,
        kid_base=kid_base,
        damage=damage,
        diversity=diversity,
        n=len(trial.own),
    )


@dataclass(frozen=True)
class Contender:
    """A trial that was scored again on fresh seeds, with a score for each of its prompts."""

    trial: str
    scores: tuple[TrialScore, ...]
    features: tuple[SampleFeatures, ...]

    @property
    def score(self) -> float:
        """The mean over its prompts."""
        return fmean(each.score for each in self.scores)


@dataclass(frozen=True)
class Choice:
    """The trial that is chosen, and why.

    Attributes:
        reason: For people.
        difference: FID of the lowest contender minus that of the prompts' own configuration on fresh seeds, as a mean over the
            prompts; None where the own configuration has no score.
        interval: Its bootstrap interval over seeds.
    """

    trial: str
    reason: str
    difference: float | None
    interval: tuple[float, float] | None


def choose(
    own: Contender,
    others: Sequence[Contender],
    held_out: Sequence[Tensor],
    objective: Literal["fid", "kid"],
    evaluation: EvaluationSettings,
) -> Choice:
    """The contender with the lowest score on fresh seeds, if it is significantly better than the prompts' own configuration.

    The lowest of several scores is partly chance. So the upper bound of the paired FID difference must be below 0 or, for
    KID, the paired test must be significant at the same level. Otherwise the own configuration wins.

    Args:
        held_out: Features `[k, d]` for each prompt of the contenders; KID takes one prompt.
    """
    lowest = min((own, *others), key=lambda contender: contender.score)
    if lowest is own:
        reason = "no trial scored lower on fresh seeds than the prompt's own configuration"
        return Choice(own.trial, reason, 0.0, (0.0, 0.0))
    compared = [
        (before.own, after.own, reference)
        for before, after, reference in zip(own.features, lowest.features, held_out, strict=True)
    ]
    fid = mean_frechet_difference(
        compared, resamples=evaluation.bootstrap, seed=evaluation.seed, level=_LEVEL
    )
    over = "" if len(compared) == 1 else f", the mean over {len(compared)} prompts"
    said = (
        f"FID {fid.value:+.1f} [{fid.low:.1f}, {fid.high:.1f}] against the prompt's own configuration{over}"
    )
    better = fid.high < 0
    if objective != "fid":
        (sets,) = compared
        p = paired_test(*sets, permutations=evaluation.permutations, seed=evaluation.seed).p
        better = p < (1 - _LEVEL) / 2
        said += f"; nearer with p = {p:.2g}"
    chosen, reason = lowest.trial, f"best on fresh seeds: {said}"
    if not better:
        chosen = own.trial
        reason = f"trial {lowest.trial} is not shown to be better than the prompt's own configuration: {said}"
    return Choice(chosen, reason, fid.value, (fid.low, fid.high))


def _damage(base: SampleFeatures, trial: SampleFeatures) -> float:
    if not base.guards:
        return 0.0
    found = recognised(base.guards, trial.guards, (base.own, trial.own))
    before, after = (
        torch.cat([getattr(each, arm) for each in found]).mean() for arm in ("base", "corrected")
    )
    return max(0.0, float(before - after))
