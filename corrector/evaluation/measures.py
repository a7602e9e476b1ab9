"""Computes the parts of a scorecard from features or pixels."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from corrector.evaluation import diversity, sanity, similarity
from corrector.evaluation.comparison import Comparison
from corrector.evaluation.comparison_images import ComparisonImages
from corrector.evaluation.distances import compare_frechet, kernel_distance
from corrector.evaluation.false_routes import paired_drop
from corrector.evaluation.feature_memory import FeatureMemory
from corrector.evaluation.features import opennsfw
from corrector.evaluation.guards import GuardImages, Recognised, recognised
from corrector.evaluation.images import resized
from corrector.evaluation.paired_test import paired_test
from corrector.evaluation.scorecard_parts import (
    DistanceScore,
    DiversityScore,
    FalseRouteScore,
    Fault,
    GuardScore,
    HardNegativeScore,
    NearerScore,
    NearestScore,
    RightImages,
    SafetyScore,
    SanityScore,
    SimilarityScore,
    VerdictScore,
)
from corrector.evaluation.verdicts import advisory_reason, mcnemar_p, right_share
from corrector.prompts import EvaluationSettings, GateThresholds

SIMILARITY_SIDE = 256
"""Pixels: larger images are compared by SSIM and PSNR at this size; 2,500 pairs take minutes at 1024."""


def nearer_score(name: str, features: ComparisonImages, settings: EvaluationSettings) -> NearerScore:
    """The paired tests against the base, and against the base in the corrected images' style."""
    nearer, restyled = (
        paired_test(
            before,
            features.corrected,
            features.held_out,
            permutations=settings.permutations,
            seed=settings.seed,
        )
        for before in (features.base, features.restyled)
    )
    return NearerScore(
        extractor=name,
        n=len(features.base),
        n_reference=len(features.held_out),
        reduction=nearer.reduction,
        p=nearer.p,
        restyled_reduction=restyled.reduction,
        restyled_p=restyled.p,
        permutations=settings.permutations,
    )


def distance_scores(
    features: dict[str, ComparisonImages], settings: EvaluationSettings
) -> list[DistanceScore]:
    """Distances of both arms to the held-out exemplars in each extractor; none where there are fewer than 2 of them."""
    return [
        _distance_score(name, each, settings) for name, each in features.items() if len(each.held_out) >= 2
    ]


def _distance_score(name: str, features: ComparisonImages, settings: EvaluationSettings) -> DistanceScore:
    base, corrected, held_out = features.base, features.corrected, features.held_out
    fid = compare_frechet(base, corrected, held_out, resamples=settings.bootstrap, seed=settings.seed)
    return DistanceScore(
        extractor=name,
        metric=f"fid_{name}",
        n=len(base),
        n_reference=len(held_out),
        fid_base=fid.base.value,
        fid_corrected=fid.corrected.value,
        fid_base_interval=fid.base,
        fid_corrected_interval=fid.corrected,
        fid_difference=fid.difference,
        kid_base=kernel_distance(base, held_out),
        kid_corrected=kernel_distance(corrected, held_out),
    )


def similarity_scores(pixels: ComparisonImages) -> list[SimilarityScore]:
    """SSIM and PSNR to held-out and to training exemplars, in both pairings."""
    found = []
    for against, exemplars in (("held-out", pixels.held_out), ("training", pixels.training)):
        if not len(exemplars):
            continue
        measured = {
            f"{name}_{arm}": matrix(images, exemplars)
            for name, matrix in (("ssim", similarity.ssim_matrix), ("psnr", similarity.psnr_matrix))
            for arm, images in (("base", pixels.base), ("corrected", pixels.corrected))
        }
        common = {"against": against, "n": len(pixels.base), "n_reference": len(exemplars)}
        common["side"] = max(pixels.base.shape[-2:])
        for pairing, average in (
            ("all pairs", similarity.over_all_pairs),
            ("best exemplar", similarity.over_best_exemplar),
        ):
            averages = {name: average(matrix) for name, matrix in measured.items()}
            found.append(SimilarityScore.model_validate({**common, "pairing": pairing, **averages}))
    return found


def diversity_scores(features: dict[str, ComparisonImages]) -> list[DiversityScore]:
    """Distance to the nearest other image, in each extractor's features."""
    return [
        _diversity(f"nearest other image in {name}", each, diversity.nearest_other, gates=True)
        for name, each in features.items()
    ]


def dissimilarity_score(pixels: ComparisonImages) -> DiversityScore:
    """Diversity by SSIM."""
    return _diversity("1 - SSIM inside the set", pixels, similarity.dissimilarity, gates=False)


def _diversity(
    measure: str, images: ComparisonImages, function: Callable[[Tensor], float], *, gates: bool
) -> DiversityScore:
    before, after = function(images.base), function(images.corrected)
    ratio = after / max(before, 1e-12)
    return DiversityScore(
        measure=measure, gates=gates, n=len(images.base), base=before, corrected=after, ratio=ratio
    )


def nearest_score(
    name: str, features: ComparisonImages, settings: EvaluationSettings, thresholds: GateThresholds
) -> NearestScore:
    """How near both arms come to training exemplars, at least 2 of them."""
    training, held_out = features.decoded or (features.training, features.held_out)
    spacing = diversity.exemplar_spacing(training, held_out, thresholds.nearest_percentile)
    before, after = (
        diversity.nearness(images, training, held_out, spacing.bound)
        for images in (features.base, features.corrected)
    )
    exemplars = len(training) + len(held_out)
    return NearestScore(
        extractor=name,
        through_vae=bool(features.decoded),
        n=len(features.base),
        n_exemplars=exemplars,
        percentile=thresholds.nearest_percentile,
        bound=spacing.bound,
        near_base=before.near,
        near_corrected=after.near,
        median_base=before.median,
        median_corrected=after.median,
        median_exemplars=spacing.median,
        training_base=before.training,
        training_corrected=after.training,
        training_expected=len(training) / exemplars,
        preference_p=diversity.training_preference(
            features.corrected, training, held_out, permutations=settings.permutations, seed=settings.seed
        )
        if len(held_out)
        else None,
    )


def guard_scores(
    features: dict[str, ComparisonImages], images: ComparisonImages, thresholds: GateThresholds
) -> list[GuardScore]:
    judged = recognised_guards(features)
    return [
        GuardScore(**values, lost=lost, passed=lost <= thresholds.max_lost_guard_images)
        for values, lost in zip(
            _recognition(images.guards, judged), lost_images(judged, thresholds), strict=True
        )
    ]


def recognised_guards(features: dict[str, ComparisonImages]) -> dict[str, list[Recognised]]:
    """Which images of each guard prompt are recognised, by extractor."""
    return {
        name: recognised(
            [guard.base for guard in each.guards],
            [guard.corrected for guard in each.guards],
            (each.base, each.corrected),
        )
        for name, each in features.items()
    }


def lost_images(judged: dict[str, list[Recognised]], thresholds: GateThresholds) -> list[int]:
    """Of each guard prompt the images recognised before and not after, in `min_extractors` of the extractors or in all.

    In one extractor alone, images of other seeds may cross to a similar prompt.
    """
    needed = min(thresholds.min_extractors, len(judged))
    lost = [[each.base * (1 - each.corrected) for each in found] for found in judged.values()]
    return [int((torch.stack(each).sum(0) >= needed).sum()) for each in zip(*lost, strict=True)]


def false_route_score(features: dict[str, ComparisonImages], images: ComparisonImages) -> FalseRouteScore:
    """The harm to hard negatives, each judged by itself, and all together."""
    judged = {
        name: [
            recognised([negative.base], [negative.corrected], (each.base, each.corrected))[0]
            for negative in each.negatives
        ]
        for name, each in features.items()
    }
    scores = tuple(
        HardNegativeScore(**values, difference=negative.difference)
        for negative, values in zip(images.negatives, _recognition(images.negatives, judged), strict=True)
    )
    before, after = (
        torch.stack([torch.cat([getattr(each, arm) for each in found]) for found in judged.values()]).mean(0)
        for arm in ("base", "corrected")
    )
    return FalseRouteScore(
        n=len(before),
        kept_base=float(before.mean()),
        kept_corrected=float(after.mean()),
        drop=paired_drop(before, after),
        change=_mean([score.change for score in scores]),
        negatives=scores,
    )


def _recognition(
    groups: Sequence[GuardImages], judged: dict[str, list[Recognised]]
) -> Iterator[dict[str, Any]]:
    """The fields common to guard prompts and hard negatives, from the images and the results of each extractor."""
    for index, group in enumerate(groups):
        found = {name: each[index] for name, each in judged.items()}
        rates = {
            name: (float(each.base.mean()), float(each.corrected.mean())) for name, each in found.items()
        }
        own, other = (fmean(arm) for arm in zip(*rates.values(), strict=True))
        change = _mean([each.change for each in found.values()])
        ssim = similarity.paired_ssim(for_similarity(group.base), for_similarity(group.corrected))
        moved = "" if change is None else f"; moved by {change:.2f} of what another seed moves"
        yield {
            "prompt": group.prompt,
            "n": len(group.base),
            "kept_base": own,
            "kept_corrected": other,
            "drop": own - other,
            "kept_by_extractor": rates,
            "change": change,
            "ssim": ssim,
            "note": f"recognised {own:.0%} before, {other:.0%} after{moved}; SSIM {ssim:.2f}",
        }


def sanity_score(prompt: str, images: ComparisonImages, thresholds: GateThresholds) -> SanityScore:
    """Which images of the prompt and its guard prompts are no pictures."""
    groups = [("base", prompt, images.base), ("corrected", prompt, images.corrected)]
    for guard in images.guards:
        groups += [("base", guard.prompt, guard.base), ("corrected", guard.prompt, guard.corrected)]
    found = []
    for arm, name, drawn in groups:
        problems = sanity.faults(
            drawn, min_contrast=thresholds.min_contrast, min_correlation=thresholds.min_correlation
        )
        for index, problem in enumerate(problems):
            if problem is not None:
                values = {"arm": arm, "prompt": name, "index": index, "fault": problem}
                found.append(Fault.model_validate(values))
    return SanityScore(n=sum(len(drawn) for _, _, drawn in groups), faults=tuple(found))


def safety_score(images: ComparisonImages, memory: FeatureMemory, thresholds: GateThresholds) -> SafetyScore:
    """The safety scores of the images of the prompt and its guard prompts."""
    before, after = (
        memory.unsafe(torch.cat([getattr(each, arm) for each in (images, *images.guards)]))
        for arm in ("base", "corrected")
    )
    return SafetyScore(
        scorer=opennsfw().name,
        threshold=thresholds.unsafe_score,
        n=len(before),
        unsafe_base=int((before > thresholds.unsafe_score).sum()),
        unsafe_corrected=int((after > thresholds.unsafe_score).sum()),
        highest_base=float(before.max()),
        highest_corrected=float(after.max()),
    )


def verdict_score(comparison: Comparison, images: ComparisonImages, memory: FeatureMemory) -> VerdictScore:
    """What the judge of `memory` says of the images of the prompt and its guard prompts."""
    assert memory.judge is not None
    texts = [text for text, _ in comparison.own]
    own = _right_images(texts[0], texts, images.base, images.corrected, memory)
    return VerdictScore(
        judge=memory.judge.name,
        advisory=advisory_reason(memory.judge),
        right_base=right_share(own.base),
        right_corrected=right_share(own.corrected),
        own=own,
        guards=tuple(
            _right_images(guard.prompt, [guard.prompt] * len(guard.base), guard.base, guard.corrected, memory)
            for guard in images.guards
        ),
    )


def _right_images(
    prompt: str, texts: Sequence[str], base: Tensor, corrected: Tensor, memory: FeatureMemory
) -> RightImages:
    before, after = memory.right(base, texts), memory.right(corrected, texts)
    better, worse = mcnemar_p(before, after), mcnemar_p(after, before)
    return RightImages(prompt=prompt, base=before, corrected=after, p_better=better, p_worse=worse)


def for_similarity(images: Tensor) -> Tensor:
    """Images at the size at which SSIM and PSNR compare them."""
    return resized(images, SIMILARITY_SIDE) if max(images.shape[-2:]) > SIMILARITY_SIDE else images


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return fmean(measured) if measured else None
