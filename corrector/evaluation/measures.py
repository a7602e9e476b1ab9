"""Computes the parts of a scorecard from features or pixels."""

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from corrector.evaluation import diversity, sanity, similarity
from corrector.evaluation.comparison_images import ComparisonImages
from corrector.evaluation.distances import compare_frechet, kernel_distance, relative_mmd
from corrector.evaluation.false_routes import paired_drop
from corrector.evaluation.guards import GuardImages, Recognised, recognised
from corrector.evaluation.images import resized
from corrector.evaluation.scorecard import (
    DistanceScore,
    DiversityScore,
    FalseRouteScore,
    Fault,
    GuardScore,
    HardNegativeScore,
    NearestScore,
    SanityScore,
    SimilarityScore,
)
from corrector.prompts import EvaluationSettings, GateThresholds

SIMILARITY_SIDE = 256
"""Pixels: larger images are compared by SSIM and PSNR at this size; 2,500 pairs take minutes at 1024."""


def distance_score(name: str, features: ComparisonImages, settings: EvaluationSettings) -> DistanceScore:
    """Distances of both arms to the held-out exemplars, at least 2 of them."""
    base, corrected, held_out = features.base, features.corrected, features.held_out
    fid = compare_frechet(base, corrected, held_out, resamples=settings.bootstrap, seed=settings.seed)
    test = relative_mmd(base, corrected, held_out, permutations=settings.permutations, seed=settings.seed)
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
        relative_mmd=test.statistic,
        relative_mmd_p=test.p,
        permutations=settings.permutations,
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


def diversity_scores(features: dict[str, ComparisonImages], pixels: ComparisonImages) -> list[DiversityScore]:
    """Diversity in each extractor's features and by SSIM, where there are at least 2 exemplars to compare with."""
    measures: list[tuple[str, ComparisonImages, Callable[[Tensor], float]]] = [
        (f"mean pairwise distance in {name}", each, diversity.mean_pairwise_distance)
        for name, each in features.items()
    ]
    measures.append(("1 - SSIM inside the set", pixels, similarity.dissimilarity))
    scores = []
    for title, images, measure in measures:
        exemplars = torch.cat([images.training, images.held_out])
        if len(exemplars) < 2:
            continue
        before, after, among = measure(images.base), measure(images.corrected), measure(exemplars)
        scores.append(
            DiversityScore(
                measure=title,
                gates=images is not pixels,
                n=len(images.base),
                n_exemplars=len(exemplars),
                base=before,
                corrected=after,
                exemplars=among,
                ratio=after / max(min(before, among), 1e-12),
                ratio_to_base=after / max(before, 1e-12),
            )
        )
    return scores


def nearest_score(name: str, features: ComparisonImages, thresholds: GateThresholds) -> NearestScore:
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
    )


def guard_scores(
    features: dict[str, ComparisonImages], images: ComparisonImages, thresholds: GateThresholds
) -> list[GuardScore]:
    judged = {
        name: recognised(
            [guard.base for guard in each.guards],
            [guard.corrected for guard in each.guards],
            (each.base, each.corrected),
        )
        for name, each in features.items()
    }
    return [
        GuardScore(**values, passed=values["drop"] <= thresholds.max_guard_prompt_drop + 1e-9)
        for values in _recognition(images.guards, judged)
    ]


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


def sanity_score(
    prompt: str, base: Tensor, corrected: Tensor, guards: Sequence[GuardImages], thresholds: GateThresholds
) -> SanityScore:
    """Which images of the prompt and its guard prompts are no pictures."""
    groups = [("base", prompt, base), ("corrected", prompt, corrected)]
    for guard in guards:
        groups += [("base", guard.prompt, guard.base), ("corrected", guard.prompt, guard.corrected)]
    found = []
    for arm, name, images in groups:
        problems = sanity.faults(
            images.cpu(), min_contrast=thresholds.min_contrast, min_correlation=thresholds.min_correlation
        )
        for index, problem in enumerate(problems):
            if problem is not None:
                values = {"arm": arm, "prompt": name, "index": index, "fault": problem}
                found.append(Fault.model_validate(values))
    return SanityScore(n=sum(len(images) for _, _, images in groups), faults=tuple(found))


def for_similarity(images: Tensor) -> Tensor:
    """Images at the size at which SSIM and PSNR compare them."""
    return resized(images, SIMILARITY_SIDE) if max(images.shape[-2:]) > SIMILARITY_SIDE else images


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return fmean(measured) if measured else None
