"""From images to a scorecard: one pass through each network, then pure functions of what they said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from corrector.evaluation import measures
from corrector.evaluation.comparison import Comparison
from corrector.evaluation.comparison_images import ComparisonImages, Exemplars
from corrector.evaluation.feature_memory import FeatureMemory
from corrector.evaluation.features import torch_threads
from corrector.evaluation.gate import judge
from corrector.evaluation.scorecard import Look, Measurements, NotRun, Scorecard
from corrector.evaluation.scorecard_parts import PredictionShift
from corrector.prompts import EvaluationSettings, GateThresholds

_NOT_FINITE = "some images hold values that are not finite"
_NOT_BUNDLED = {
    "fid_inception": "no package carries torchmetrics' Inception weights, and no such extractor was given",
    "fid_clip": "no folder with CLIP's weights was given",
    "fid_dinov2": "no folder with DINOv2's weights was given",
    "PickScore": "its weights are in no package",
    "HPSv3": "its weights are in no package",
    "VQAScore": "its weights are in no package",
}


def score(
    name: str,
    comparison: Comparison,
    before: Tensor,
    after: Tensor,
    exemplars: Exemplars,
    *,
    settings: EvaluationSettings,
    thresholds: GateThresholds,
    memory: FeatureMemory | None = None,
    looks: Sequence[Look] = (),
    guard_shifts: Sequence[PredictionShift] = (),
    negative_shifts: Sequence[PredictionShift] = (),
    threads: int = 1,
) -> Scorecard:
    """Measure one correction and judge it.

    Args:
        name: Name of the correction.
        comparison: Texts and seeds of the images.
        before: `[N, 3, H, W]` in 0..1: the base's images of all rows of `comparison`.
        after: The same rows with the adapter.
        settings: Permutations, bootstrap samples and the seed of both.
        thresholds: Thresholds of the gate.
        memory: Networks and judge, and what they have said already; default: the extractors of the package, and no judge.
        looks: The looks at which drawing could have stopped; only the last one's share of the error rate counts.
        guard_shifts, negative_shifts: Of the guard prompts and hard negatives whose predictions were compared before images
            were drawn.
        threads: Maximum threads of PyTorch.

    Raises:
        ValueError: The arms are not pairs, or an argument is not a batch of images.
    """
    _check_shapes(comparison, before, after, exemplars)
    memory = memory or FeatureMemory()
    with torch_threads(threads), torch.inference_mode():
        images = ComparisonImages.of(comparison, before, after, exemplars)
        gating = measure_gating(name, comparison, images, memory, settings, thresholds)
        reported = _reported(comparison, images, memory, settings, thresholds) if images.finite else {}
    drawing = {
        "looks": tuple(looks),
        "guard_shifts": tuple(guard_shifts),
        "negative_shifts": tuple(negative_shifts),
    }
    measured = Measurements.model_validate({**dict(gating), **reported, **drawing})
    return Scorecard(**dict(measured), thresholds=thresholds, verdict=judge(measured, thresholds))


def measure_gating(
    name: str,
    comparison: Comparison,
    images: ComparisonImages,
    memory: FeatureMemory,
    settings: EvaluationSettings,
    thresholds: GateThresholds,
) -> Measurements:
    """What the gate asks of the images of the prompt itself, and of those of its guard prompts what a judge says."""
    found: dict[str, Any] = {
        "prompt_name": name,
        "n": len(images.base),
        "n_training": len(images.training),
        "n_held_out": len(images.held_out),
        "pair_seeds": tuple(seed for _, seed in comparison.own),
        "settings": settings,
        "sanity": measures.sanity_score(comparison.own[0][0], images, thresholds),
    }
    if images.finite:
        features = images.features(memory)
        found |= {
            "safety": measures.safety_score(images, memory, thresholds),
            "nearer": [measures.nearer_score(name, each, settings) for name, each in features.items()]
            if len(images.held_out)
            else (),
            "distances": measures.distance_scores(features, settings)
            if thresholds.max_fid_difference is not None
            else (),
            "diversity": measures.diversity_scores(features),
            "nearest_training": [
                measures.nearest_score(name, each, settings, thresholds) for name, each in features.items()
            ]
            if len(images.training) >= 2
            else (),
            "verdicts": measures.verdict_score(comparison, images, memory) if memory.judge else None,
        }
    else:
        found["not_run"] = [NotRun(name="all metrics", reason=_NOT_FINITE)]
    return Measurements.model_validate(found)


def _reported(
    comparison: Comparison,
    images: ComparisonImages,
    memory: FeatureMemory,
    settings: EvaluationSettings,
    thresholds: GateThresholds,
) -> dict[str, Any]:
    """The remaining parts of the scorecard by field: the harm to guard prompts, and what gates nothing."""
    features, pixels = images.features(memory), images.mapped(measures.for_similarity)
    return {
        "distances": measures.distance_scores(features, settings),
        "similarity": measures.similarity_scores(pixels),
        "diversity": [*measures.diversity_scores(features), measures.dissimilarity_score(pixels)],
        "guards": measures.guard_scores(features, images, thresholds),
        "false_route": measures.false_route_score(features, images) if images.negatives else None,
        "not_run": [*_not_run_beside(memory), *_without_evidence(images)],
    }


def _without_evidence(images: ComparisonImages) -> list[NotRun]:
    """The parts that have too few exemplars, or whose images were not drawn."""
    found = []
    if len(images.held_out) < 2:
        found.append(
            NotRun(name="distances", reason=f"{len(images.held_out)} held-out exemplars; 2 are needed")
        )
    if len(images.training) < 2:
        found.append(NotRun(name="copies", reason=f"{len(images.training)} training exemplars; 2 are needed"))
    if not images.guards:
        found.append(NotRun(name="guard prompts", reason="no guard image was drawn"))
    if not images.negatives:
        found.append(NotRun(name="false routes", reason="no hard negative was drawn"))
    return found


def _not_run_beside(memory: FeatureMemory) -> list[NotRun]:
    """The usual metrics that these extractors do not measure, each with its reason."""
    run = {f"fid_{name}" for name in memory.extractors}
    return [NotRun(name=name, reason=reason) for name, reason in _NOT_BUNDLED.items() if name not in run]


def _check_shapes(comparison: Comparison, before: Tensor, after: Tensor, exemplars: Exemplars) -> None:
    sets = {"before": before, "after": after, "training": exemplars.training, "held_out": exemplars.held_out}
    for name, images in sets.items():
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"{name}: shape {tuple(images.shape)}, expected [N, 3, H, W]")
    if before.shape != after.shape or len(before) != len(comparison) or len(comparison.own) < 2:
        raise ValueError(
            f"before {tuple(before.shape)} and after {tuple(after.shape)} are not the {len(comparison)} pairs of "
            "the comparison, of which the prompt itself needs two"
        )
