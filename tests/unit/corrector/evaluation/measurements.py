"""Measurements with which every condition of the gate holds; a test changes one figure."""

from typing import Any

from corrector.evaluation import Measurements
from corrector.evaluation.scorecard import Look
from corrector.evaluation.scorecard_figures import Interval
from corrector.evaluation.scorecard_parts import (
    DistanceScore,
    DiversityScore,
    Fault,
    GuardScore,
    NearerScore,
    NearestScore,
    PredictionShift,
    RightImages,
    SafetyScore,
    SanityScore,
    VerdictScore,
)
from corrector.evaluation.verdicts import mcnemar_p, right_share
from corrector.prompts import EvaluationSettings


def nearer(
    extractor: str, p: float = 0.001, restyled_p: float = 0.001, restyled_reduction: float = 0.1
) -> NearerScore:
    return NearerScore(
        extractor=extractor,
        n=16,
        n_reference=8,
        reduction=0.2,
        p=p,
        restyled_reduction=restyled_reduction,
        restyled_p=restyled_p,
        permutations=2000,
    )


def distance(extractor: str, high: float = -40) -> DistanceScore:
    interval = Interval(low=80, value=90, high=99)
    return DistanceScore(
        extractor=extractor,
        metric=f"fid_{extractor}",
        n=16,
        n_reference=8,
        fid_base=90.0,
        fid_corrected=40.0,
        fid_base_interval=interval,
        fid_corrected_interval=interval,
        fid_difference=Interval(low=-60, value=-50, high=high),
        kid_base=0.2,
        kid_corrected=0.1,
    )


def diversity(ratio: float, gates: bool = True) -> DiversityScore:
    return DiversityScore(measure="m", gates=gates, n=16, base=2, corrected=2 * ratio, ratio=ratio)


def nearest(share: float, preference_p: float | None = 0.001) -> NearestScore:
    return NearestScore(
        extractor="one",
        through_vae=True,
        n=16,
        n_exemplars=16,
        percentile=95,
        bound=1,
        near_base=0,
        near_corrected=share,
        median_base=2,
        median_corrected=2,
        median_exemplars=2,
        training_base=0.5,
        training_corrected=0.5,
        training_expected=0.5,
        preference_p=preference_p,
    )


def guard(lost: int = 0, n: int = 24) -> GuardScore:
    kept = 1 - lost / n
    return GuardScore(
        prompt="p",
        n=n,
        kept_base=1,
        kept_corrected=kept,
        drop=1 - kept,
        lost=lost,
        kept_by_extractor={"one": (1, kept)},
        change=0.1,
        ssim=0.9,
        passed=lost == 0,
        note="",
    )


def shift(largest: float, prompt: str = "q") -> PredictionShift:
    return PredictionShift(prompt=prompt, n=24, largest=largest, mean=largest / 2)


def safety(before: int, after: int) -> SafetyScore:
    return SafetyScore(
        scorer="s",
        threshold=0.5,
        n=40,
        unsafe_base=before,
        unsafe_corrected=after,
        highest_base=0.1,
        highest_corrected=0.1,
    )


def fault(arm: str) -> SanityScore:
    values = {"arm": arm, "prompt": "p", "index": 3, "fault": "is flat"}
    return SanityScore(n=32, faults=(Fault.model_validate(values),))


def right(before: int, after: int, n: int) -> RightImages:
    """So many of `n` images are right; those that were right before stay so."""
    one, other = ([place < count for place in range(n)] for count in (before, after))
    return RightImages(
        prompt="p",
        base=tuple(one),
        corrected=tuple(other),
        p_better=mcnemar_p(one, other),
        p_worse=mcnemar_p(other, one),
    )


def verdicts(before: int = 0, after: int = 16, *guards: RightImages) -> VerdictScore:
    own = right(before, after, 16)
    return VerdictScore(
        judge="someone",
        right_base=right_share(own.base),
        right_corrected=right_share(own.corrected),
        own=own,
        guards=guards or (right(24, 24, 24),),
    )


def look(decision: str, n: int = 16, share: float = 1.0) -> Look:
    values = {"n": n, "most": 32, "share": share, "decision": decision, "why": "because"}
    return Look.model_validate(values)


def measured(**changes: Any) -> Measurements:
    values = {
        "prompt_name": "lying",
        "n": 16,
        "n_training": 8,
        "n_held_out": 8,
        "pair_seeds": tuple(range(16)),
        "settings": EvaluationSettings(),
        "nearer": (nearer("one"), nearer("two")),
        "distances": (distance("one"), distance("two")),
        "diversity": (diversity(0.8),),
        "nearest_training": (nearest(0.1),),
        "guards": (guard(),),
        "safety": safety(1, 1),
        "sanity": SanityScore(n=32, faults=()),
    }
    return Measurements.model_validate({**values, **changes})
