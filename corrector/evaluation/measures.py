"""The parts of a scorecard, each from the features or the pixels that it needs."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from corrector.evaluation import diversity, sanity, similarity
from corrector.evaluation.comparison_images import ComparisonImages
from corrector.evaluation.distances import compare_frechet, kernel_distance, relative_mmd
from corrector.evaluation.false_routes import PAIRED_SHARES, HardNegativeImages, paired_drop
from corrector.evaluation.figures import Interval
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


def distances_score(name: str, found: ComparisonImages, settings: EvaluationSettings) -> DistanceScore:
    fid = compare_frechet(
        found.base, found.corrected, found.held_out, resamples=settings.bootstrap, seed=settings.seed
    )
    relative = relative_mmd(
        found.base, found.corrected, found.held_out, permutations=settings.permutations, seed=settings.seed
    )
    return DistanceScore(
        extractor=name,
        metric=f"fid_{name}",
        n=len(found.base),
        n_reference=len(found.held_out),
        fid_base=fid.base,
        fid_corrected=fid.corrected,
        fid_base_interval=_interval(fid.base, fid.base_bounds),
        fid_corrected_interval=_interval(fid.corrected, fid.corrected_bounds),
        fid_difference=_interval(fid.difference, fid.difference_bounds),
        kid_base=kernel_distance(found.base, found.held_out),
        kid_corrected=kernel_distance(found.corrected, found.held_out),
        relative_mmd=relative.statistic,
        relative_mmd_p=relative.p,
        permutations=settings.permutations,
    )


def similarity_scores(pixels: ComparisonImages) -> list[SimilarityScore]:
    pairings = (
        ("all pairs", similarity.over_all_pairs),
        ("best exemplar", similarity.over_best_exemplar),
    )
    found = []
    for against, exemplars in (("held-out", pixels.held_out), ("training", pixels.training)):
        if not len(exemplars):
            continue
        ssim = [similarity.ssim_matrix(arm, exemplars) for arm in (pixels.base, pixels.corrected)]
        psnr = [similarity.psnr_matrix(arm, exemplars) for arm in (pixels.base, pixels.corrected)]
        for pairing, average in pairings:
            values = {
                "against": against,
                "pairing": pairing,
                "n": len(pixels.base),
                "n_reference": len(exemplars),
                "side": max(pixels.base.shape[-2:]),
                "ssim_base": average(ssim[0]),
                "ssim_corrected": average(ssim[1]),
                "psnr_base": average(psnr[0]),
                "psnr_corrected": average(psnr[1]),
            }
            found.append(SimilarityScore.model_validate(values))
    return found


def diversity_scores(features: dict[str, ComparisonImages], pixels: ComparisonImages) -> list[DiversityScore]:
    def dissimilarity(images: Tensor) -> float:
        return 1 - similarity.inside_set(similarity.ssim_matrix(images, images))

    measures: list[tuple[str, bool, ComparisonImages, Callable[[Tensor], float]]] = [
        (f"mean pairwise distance in {name}", True, found, diversity.mean_pairwise_distance)
        for name, found in features.items()
    ]
    measures.append(("1 - SSIM inside the set", False, pixels, dissimilarity))
    scores = []
    for title, gates, arms, measure in measures:
        exemplars = torch.cat([arms.training, arms.held_out])
        if len(exemplars) < 2:
            continue
        before, after, among = measure(arms.base), measure(arms.corrected), measure(exemplars)
        scores.append(
            DiversityScore(
                measure=title,
                gates=gates,
                n=len(arms.base),
                n_exemplars=len(exemplars),
                base=before,
                corrected=after,
                exemplars=among,
                ratio=after / max(min(before, among), 1e-12),
                ratio_to_base=after / max(before, 1e-12),
            )
        )
    return scores


def nearest_score(name: str, found: ComparisonImages, thresholds: GateThresholds) -> NearestScore:
    training, held_out = found.decoded or (found.training, found.held_out)
    spacing = diversity.exemplar_spacing(training, held_out, thresholds.nearest_percentile)
    before, after = (
        diversity.nearness(arm, training, held_out, spacing.bound) for arm in (found.base, found.corrected)
    )
    exemplars = len(training) + len(held_out)
    return NearestScore(
        extractor=name,
        through_vae=bool(found.decoded),
        n=len(found.base),
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


def guards_scores(
    guards: Sequence[GuardImages],
    features: dict[str, ComparisonImages],
    arms: ComparisonImages,
    thresholds: GateThresholds,
) -> list[GuardScore]:
    judged = {
        name: recognised(found.guards_base, found.guards_corrected, (found.base, found.corrected))
        for name, found in features.items()
    }
    return [
        GuardScore(**figures, passed=figures["drop"] <= thresholds.max_guard_prompt_drop + 1e-9)
        for figures in _kept_figures(guards, judged, arms.guards_base, arms.guards_corrected)
    ]


def false_route_score(
    negatives: Sequence[HardNegativeImages], features: dict[str, ComparisonImages], arms: ComparisonImages
) -> FalseRouteScore:
    judged = {
        name: [
            recognised([before], [after], (found.base, found.corrected))[0]
            for before, after in zip(found.negatives_base, found.negatives_corrected, strict=True)
        ]
        for name, found in features.items()
    }
    scores = [
        HardNegativeScore(**figures, difference=negative.difference)
        for negative, figures in zip(
            negatives,
            _kept_figures(negatives, judged, arms.negatives_base, arms.negatives_corrected),
            strict=True,
        )
    ]
    before, after = (
        torch.stack([torch.cat([getattr(each, arm) for each in found]) for found in judged.values()]).mean(0)
        for arm in ("base", "corrected")
    )
    changes = [score.change for score in scores if score.change is not None]
    low, high = paired_drop(before, after)
    return FalseRouteScore(
        n=len(before),
        kept_base=float(before.mean()),
        kept_corrected=float(after.mean()),
        drop=Interval(low=low, value=float((before - after).mean()), high=high, method=PAIRED_SHARES),
        change=sum(changes) / len(changes) if changes else None,
        negatives=tuple(scores),
    )


def _kept_figures(
    groups: Sequence[GuardImages],
    judged: dict[str, list[Recognised]],
    before: Sequence[Tensor],
    after: Sequence[Tensor],
) -> Iterator[dict[str, Any]]:
    """What guard prompts and hard negatives have in common, from each extractor's judgement and the stored images."""
    for index, group in enumerate(groups):
        by_extractor = {
            name: (float(found[index].base.mean()), float(found[index].corrected.mean()))
            for name, found in judged.items()
        }
        own, other = (sum(rates) / len(rates) for rates in zip(*by_extractor.values(), strict=True))
        changes = [found[index].change for found in judged.values()]
        measured = [change for change in changes if change is not None]
        change = sum(measured) / len(measured) if measured else None
        ssim = similarity.paired_ssim(for_similarity(before[index]), for_similarity(after[index]))
        moved = "" if change is None else f"; moved by {change:.2f} of what another seed moves"
        yield {
            "prompt": group.prompt,
            "n": len(group.base),
            "kept_base": own,
            "kept_corrected": other,
            "drop": own - other,
            "kept_by_extractor": by_extractor,
            "change": change,
            "ssim": ssim,
            "note": f"recognised {own:.0%} before, {other:.0%} after{moved}; SSIM {ssim:.2f}",
        }


def _interval(value: float, bounds: tuple[float, float]) -> Interval:
    return Interval(low=bounds[0], value=value, high=bounds[1])


def sanity_score(
    prompt: str, base: Tensor, corrected: Tensor, guards: Sequence[GuardImages], thresholds: GateThresholds
) -> SanityScore:
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
    return resized(images, SIMILARITY_SIDE) if max(images.shape[-2:]) > SIMILARITY_SIDE else images
