"""From images to a scorecard: one pass through each extractor, then pure functions of the features."""

from collections.abc import Sequence

import torch
from torch import Tensor

from corrector.evaluation import measures
from corrector.evaluation.comparison_images import ComparisonImages, extracted
from corrector.evaluation.false_routes import HardNegativeImages
from corrector.evaluation.features import FeatureExtractor, default_extractors, torch_threads
from corrector.evaluation.gate import judge
from corrector.evaluation.guards import GuardImages
from corrector.evaluation.images import as_stored, same_size
from corrector.evaluation.scorecard import Measurements, NotRun, Scorecard
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
    *,
    prompt_name: str,
    base: Tensor,
    corrected: Tensor,
    training: Tensor,
    held_out: Tensor,
    guards: Sequence[GuardImages],
    pair_seeds: Sequence[int],
    settings: EvaluationSettings,
    thresholds: GateThresholds,
    negatives: Sequence[HardNegativeImages] = (),
    decoded_exemplars: tuple[Tensor, Tensor] | None = None,
    extractors: Sequence[FeatureExtractor] | None = None,
    threads: int = 1,
) -> Scorecard:
    """Measure one correction and judge it.

    Args:
        prompt_name: Name of the correction.
        base: `[N, 3, H, W]` in 0..1, the failing prompt without the adapter.
        corrected: `[N, 3, H, W]`, the same prompts and seeds with the adapter.
        training: `[M, 3, h, w]` exemplars that the adapter was trained on; resized to H x W.
        held_out: `[K, 3, h, w]` exemplars that it was not trained on; resized to H x W.
        guards: Images of the guard prompts, before and after.
        pair_seeds: The N seeds; only stored.
        settings: Permutations, bootstrap samples and the seed of both.
        thresholds: Thresholds of the gate.
        negatives: Images of hard negatives, before and after; the gate does not see them.
        decoded_exemplars: `training` and `held_out`, encoded and decoded by the base's VAE, for the check
            for copies. The VAE changes an exemplar by more than the distance between exemplars. On the embedded
            base the check found none of twelve near copies with the originals, and all with decoded exemplars.
        extractors: Feature spaces; default: the two that come with the package.
        threads: Maximum threads of PyTorch.

    Raises:
        ValueError: The arms are not pairs, an argument is not a batch of images, or there is no extractor.
    """
    _check_shapes(base, corrected, training, held_out, (*guards, *negatives), pair_seeds)
    chosen = tuple(default_extractors() if extractors is None else extractors)
    if not chosen:
        raise ValueError("no feature extractor: nothing could be measured")
    common: dict[str, object] = {
        "prompt_name": prompt_name,
        "n": len(base),
        "n_training": len(training),
        "n_held_out": len(held_out),
        "pair_seeds": tuple(pair_seeds),
        "settings": settings,
    }
    with torch_threads(threads), torch.inference_mode():
        common["sanity"] = checked = measures.sanity_score(prompt_name, base, corrected, guards, thresholds)
        if any("finite" in fault.fault for fault in checked.faults):
            found: dict[str, object] = {"not_run": [NotRun(name="all metrics", reason=_NOT_FINITE)]}
        else:
            no_false_route = _no_false_route(negatives, settings)
            images = ComparisonImages(
                base=base,
                corrected=corrected,
                training=same_size(training, base),
                held_out=same_size(held_out, base),
                decoded=tuple(same_size(exemplars, base) for exemplars in decoded_exemplars or ()),
                guards=tuple(guards),
                negatives=() if no_false_route else tuple(negatives),
            ).mapped(lambda tensor: as_stored(tensor.cpu()))
            found = _measured(images, settings, thresholds, chosen)
            found["not_run"] = [
                *_not_run_beside(chosen),
                *([NotRun(name="false routes", reason=no_false_route)] if no_false_route else ()),
                *_without_evidence(images),
            ]
    measured = Measurements.model_validate(common | found)
    return Scorecard(**dict(measured), thresholds=thresholds, verdict=judge(measured, thresholds))


def _measured(
    images: ComparisonImages,
    settings: EvaluationSettings,
    thresholds: GateThresholds,
    extractors: Sequence[FeatureExtractor],
) -> dict[str, object]:
    """Field -> the part of the scorecard, for those that can be measured."""
    features, safety = extracted(images, extractors, thresholds.unsafe_score)
    pixels = images.mapped(measures.for_similarity)
    by_extractor = features.items() if len(images.held_out) >= 2 else ()
    near = features.items() if len(images.training) >= 2 else ()
    return {
        "distances": [measures.distance_score(name, each, settings) for name, each in by_extractor],
        "similarity": measures.similarity_scores(pixels),
        "diversity": measures.diversity_scores(features, pixels),
        "nearest_training": [measures.nearest_score(name, each, thresholds) for name, each in near],
        "guards": measures.guard_scores(features, images, thresholds),
        "false_route": measures.false_route_score(features, images) if images.negatives else None,
        "safety": safety,
    }


def _without_evidence(images: ComparisonImages) -> list[NotRun]:
    """The parts that have too few exemplars or no guard prompts."""
    found = []
    if len(images.held_out) < 2:
        found.append(
            NotRun(name="distances", reason=f"{len(images.held_out)} held-out exemplars; 2 are needed")
        )
    if len(images.training) < 2:
        found.append(NotRun(name="copies", reason=f"{len(images.training)} training exemplars; 2 are needed"))
    if not images.guards:
        found.append(NotRun(name="guard prompts", reason="the batch file names none for this prompt"))
    return found


def _not_run_beside(extractors: Sequence[FeatureExtractor]) -> tuple[NotRun, ...]:
    """The usual metrics that these extractors do not measure, each with its reason."""
    run = {f"fid_{extractor.name}" for extractor in extractors}
    return tuple(NotRun(name=name, reason=reason) for name, reason in _NOT_BUNDLED.items() if name not in run)


def _no_false_route(negatives: Sequence[HardNegativeImages], settings: EvaluationSettings) -> str | None:
    """Why no false route can be measured; None where it can."""
    if not negatives:
        return "hard_negatives is 0" if settings.hard_negatives == 0 else "no hard negative was drawn"
    images = [arm for negative in negatives for arm in (negative.base, negative.corrected)]
    return None if all(bool(torch.isfinite(arm).all()) for arm in images) else _NOT_FINITE


def _check_shapes(
    base: Tensor,
    corrected: Tensor,
    training: Tensor,
    held_out: Tensor,
    guards: Sequence[GuardImages],
    pair_seeds: Sequence[int],
) -> None:
    sets = {"base": base, "corrected": corrected, "training": training, "held_out": held_out}
    for name, images in sets.items():
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"{name}: shape {tuple(images.shape)}, expected [N, 3, H, W]")
    if base.shape != corrected.shape or len(base) != len(pair_seeds) or len(base) < 2:
        raise ValueError(
            f"base {tuple(base.shape)}, corrected {tuple(corrected.shape)} and {len(pair_seeds)} seeds "
            "are not two or more pairs"
        )
    for guard in guards:
        if guard.base.shape != guard.corrected.shape or not len(guard.base):
            shapes = f"{tuple(guard.base.shape)} and {tuple(guard.corrected.shape)}"
            raise ValueError(f'"{guard.prompt}": base and corrected of shapes {shapes} are not pairs')
