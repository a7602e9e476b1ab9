"""What a search minimises: the distance that is left to the held-out exemplars, and what was paid for it.

Everything here is measured against the base at the same seeds, so that scores of different rungs are of one kind: 1 is as far
as the base, 0 is at the exemplars.
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
    relative_mmd,
)
from corrector.evaluation.diversity import mean_pairwise_distance
from corrector.evaluation.guards import recognised
from corrector.prompts import EvaluationSettings, GateThresholds, SearchSettings

_SMALLEST = 1e-12
_LEVEL = 0.95


@dataclass(frozen=True)
class SampleFeatures:
    """One arm in one extractor: features `[n, d]` of the prompt's own images, and `[g, d]` of each guard prompt's."""

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
    """The exemplars in the same extractor: `[m, d]` that were trained on, and `[k, d]` that were not, k at least 2."""

    training: Tensor
    held_out: Tensor


class TrialScore(BaseModel):
    """A trial at one rung; `score` is what the search minimises."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    score: float
    """`distance`, and what is charged for damage and for lost diversity."""
    distance: float
    """Of the objective's measure, as a share of the base's."""
    fid: float
    fid_base: float
    kid: float
    kid_base: float
    damage: float
    """Share of guard images that are no longer recognised as their own prompt's, less the base's; not below 0."""
    diversity: float
    """Of the images, as a share of the smaller of base's and exemplars'."""
    n: int


def trial_score(
    base: SampleFeatures,
    trial: SampleFeatures,
    exemplars: ExemplarFeatures,
    search: SearchSettings,
    gate: GateThresholds,
    evaluation: EvaluationSettings,
) -> TrialScore:
    """The score of a trial whose rows in `trial` have the prompts and seeds of those in `base`.

    Raises:
        ValueError: Some features are not finite, as of a trial that diverged, or the arms are not pairs.
    """
    if not all(bool(torch.isfinite(features).all()) for features in (trial.own, *trial.guards)):
        raise ValueError("its images are not finite")
    fid, fid_base = (frechet_distance(arm.own, exemplars.held_out) for arm in (trial, base))
    kid, kid_base = (kernel_distance(arm.own, exemplars.held_out) for arm in (trial, base))
    if search.objective == "fid":
        distance = fid / max(fid_base, _SMALLEST)
    elif search.objective == "kid":
        distance = kid / max(kid_base, _SMALLEST)
    else:
        found = relative_mmd(
            base.own,
            trial.own,
            exemplars.held_out,
            permutations=evaluation.permutations,
            seed=evaluation.seed,
        )
        distance = 1 - found.statistic / max(kid_base, _SMALLEST)
    damage, diversity = _damage(base, trial), _diversity(base, trial, exemplars)
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
    """A trial that was scored again on fresh seeds: for one prompt, or for each of several that are searched as a whole."""

    trial: str
    scores: tuple[TrialScore, ...]
    features: tuple[SampleFeatures, ...]

    @property
    def score(self) -> float:
        """The mean over its prompts."""
        return fmean(each.score for each in self.scores)


@dataclass(frozen=True)
class Choice:
    """Which trial is best, and how that was found.

    Attributes:
        trial: The best.
        reason: In words, for people.
        difference: FID of the lowest contender minus that of the prompts' own configuration, on the fresh seeds, the mean over
            the prompts; None where the latter came to no score.
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
    objective: Literal["fid", "kid", "relative_mmd"],
    evaluation: EvaluationSettings,
) -> Choice:
    """The contender with the lowest score on fresh seeds, if it is shown to be better than the prompts' own configuration.

    The lowest of several scores is low by luck, too. So it has to come nearer to the exemplars pair by pair: the upper bound
    of the FID difference below 0, or, for the kernel objectives, the relative-MMD test at the same level. Otherwise what the
    prompts had stays.

    Args:
        held_out: For each prompt of the contenders `[k, d]`; the kernel objectives are for one prompt.
    """
    lowest = min((own, *others), key=lambda contender: contender.score)
    if lowest is own:
        reason = "no trial scored lower on fresh seeds than the prompt's own configuration"
        return Choice(own.trial, reason, 0.0, (0.0, 0.0))
    arms = [
        (before.own, after.own, reference)
        for before, after, reference in zip(own.features, lowest.features, held_out, strict=True)
    ]
    difference, (low, high) = mean_frechet_difference(
        arms, resamples=evaluation.bootstrap, seed=evaluation.seed, level=_LEVEL
    )
    over = "" if len(arms) == 1 else f", the mean over {len(arms)} prompts"
    said = f"FID {difference:+.1f} [{low:.1f}, {high:.1f}] against the prompt's own configuration{over}"
    if objective == "fid":
        better = high < 0
    else:
        ((before, after, reference),) = arms
        test = relative_mmd(
            before, after, reference, permutations=evaluation.permutations, seed=evaluation.seed
        )
        better = test.p < (1 - _LEVEL) / 2
        said += f"; relative MMD p = {test.p:.2g}"
    if better:
        return Choice(lowest.trial, f"best on fresh seeds: {said}", difference, (low, high))
    reason = f"trial {lowest.trial} is not shown to be better than the prompt's own configuration: {said}"
    return Choice(own.trial, reason, difference, (low, high))


def _damage(base: SampleFeatures, trial: SampleFeatures) -> float:
    if not base.guards:
        return 0.0
    found = recognised(base.guards, trial.guards, (base.own, trial.own))
    before, after = (
        torch.cat([getattr(each, arm) for each in found]).mean() for arm in ("base", "corrected")
    )
    return max(0.0, float(before - after))


def _diversity(base: SampleFeatures, trial: SampleFeatures, exemplars: ExemplarFeatures) -> float:
    among = mean_pairwise_distance(torch.cat([exemplars.training, exemplars.held_out]))
    return mean_pairwise_distance(trial.own) / max(min(mean_pairwise_distance(base.own), among), _SMALLEST)
