"""Records as a job leaves them, from the procedural world: broken renders before, true renders after.

`python -m tests.support.records FOLDER` writes a run of several prompts to look at.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import torch

from corrector.adapters import Adapter, save_adapter
from corrector.evaluation.comparison import GuardSamples, NegativeSamples
from corrector.evaluation.gate import judge
from corrector.evaluation.scorecard import Look, Measurements, NotRun, Scorecard
from corrector.evaluation.scorecard_figures import Interval
from corrector.evaluation.scorecard_parts import (
    DistanceScore,
    DiversityScore,
    FalseRouteScore,
    GuardScore,
    HardNegativeScore,
    NearerScore,
    NearestScore,
    SafetyScore,
    SanityScore,
    SimilarityScore,
)
from corrector.exemplars.provenance import Decision, ExemplarSource, Generation
from corrector.files import file_sha256
from corrector.prompts import EvaluationSettings, GateThresholds
from corrector.prompts.variations import Difference
from corrector.record.correction_record import (
    WEIGHTS_FILE,
    CorrectionRecord,
    CurvePoint,
)
from tests.world.scenes import Scene, canonical_prompt, paraphrases, render

Status = Literal["corrected", "rejected", "failed"]


def write_record(
    folder: Path,
    scene: Scene,
    status: Status = "corrected",
    *,
    pairs: int = 32,
    guard_images: int = 8,
    steps: int = 400,
    size: int = 64,
    error: str | None = None,
    adapter: Adapter | None = None,
    **changes: Any,
) -> CorrectionRecord:
    """Write the record of a fine-tune for `scene` into `folder` and return it."""
    prompts = [canonical_prompt(scene), *paraphrases(scene)[:3]]
    guards = [Scene(scene.subject, pose, scene.place) for pose in ("standing", "running")]
    negatives = _negatives(scene)
    seeds = tuple(range(1000, 1000 + pairs))
    images = torch.stack
    tried = status != "failed"
    CorrectionRecord.write_images(
        folder,
        exemplars=images([picture(scene, seed, size) for seed in range(8)]),
        held_out=images([picture(scene, seed, size) for seed in range(20, 28)]),
        before=images([picture(scene, seed, size, broken=True) for seed in seeds]) if tried else None,
        after=images(
            [picture(scene, seed, size, broken=status == "rejected" and seed % 2 == 0) for seed in seeds]
        )
        if tried
        else None,
        guards=[
            (
                images([picture(guard, seed, size) for seed in range(guard_images)]),
                images(
                    [
                        picture(guard, seed, size, broken=status == "rejected" and seed < 3)
                        for seed in range(guard_images)
                    ]
                ),
            )
            for guard in guards
        ]
        if tried
        else (),
        negatives=[
            (
                images([picture(negative, seed, size) for seed in range(2)]),
                images([picture((negative, scene)[seed % 2], seed, size) for seed in range(2)]),
            )
            for negative in negatives.values()
        ]
        if tried
        else (),
    )
    if tried:
        save_adapter(adapter or small_adapter(f"{scene}{status}"), folder / "adapter")
    fields: dict[str, Any] = {
        "name": canonical_prompt(scene).replace(" ", "-"),
        "prompt": canonical_prompt(scene),
        "status": status,
        "error": error
        or (None if tried else "training diverged: the loss was not finite at step 37; lower learning_rate"),
        "work_id": hashlib.sha256(str(scene).encode()).hexdigest(),
        "entry": {
            "prompt": canonical_prompt(scene),
            "exemplars": "exemplars/" + scene.subject,
            "paraphrases": prompts[1:],
            "guard_prompts": [canonical_prompt(guard) for guard in guards],
            "owner": "image quality",
            "hyperparameters": {
                "rank": 8,
                "learning_rate": 1e-3,
                "steps": steps,
                "batch_size": 4,
                "preservation": "guard",
            },
        },
        "base_reference": "embedded",
        "base_name": "embedded",
        "base_revision": hashlib.sha256(b"base").hexdigest(),
        "adapter_sha256": file_sha256(folder / "adapter" / WEIGHTS_FILE) if tried else None,
        "scorecard": scorecard(status == "corrected", pairs, guards, negatives) if tried else None,
        "curve": curve(steps if tried else 37, finite=tried),
        "seeds": seeds if tried else (),
        "sampled_prompts": tuple(prompts[k % len(prompts)] for k in range(pairs)) if tried else (),
        "guards": tuple(
            GuardSamples(prompt=canonical_prompt(guard), seeds=tuple(range(guard_images))) for guard in guards
        )
        if tried
        else (),
        "hard_negatives": tuple(
            NegativeSamples(prompt=canonical_prompt(negative), difference=difference, seeds=(50, 51))
            for difference, negative in negatives.items()
        )
        if tried
        else (),
        "seconds": {"training": 61.4, "sampling": 22.9, "scoring": 3.2} if tried else {"training": 5.1},
        "exemplars": sources(),
        "lineage": {
            "code_version": "0.1.0+4f2a91c",
            "exemplars": {f"{k:02d}.png": hashlib.sha256(bytes([k])).hexdigest() for k in range(12)},
            "packages": {"torch": "2.13.0", "diffusers": "0.42.1", "peft": "0.21.2"},
            "seeds": {"training": 0, "evaluation": 1000},
        },
        "created": datetime(2026, 3, 4, 12, 30, tzinfo=UTC),
    }
    record = CorrectionRecord(**(fields | changes))
    record.save(folder)
    return record


def sources() -> tuple[ExemplarSource, ...]:
    """A generated exemplar, one of a folder that somebody kept, and a generated one that somebody dropped."""
    folder = ExemplarSource(
        name="01.png", sha256=hashlib.sha256(bytes([1])).hexdigest(), kind="folder", place="exemplars/person"
    )
    made = Generation(
        model="gpt-image-1",
        host="api.openai.com",
        prompt="a person lying on the grass",
        revised_prompt="A person lies on a lawn | from above",
        request_id="req-7",
        dollars=0.04,
    )
    first = folder.model_copy(update={"name": "00.png", "sha256": hashlib.sha256(bytes([0])).hexdigest()})
    dropped = Decision(decision="drop", by="Ana", why="three legs")
    return (
        first.model_copy(update={"generation": made}),
        folder.model_copy(update={"decision": Decision(decision="keep", by="Bea")}),
        folder.model_copy(
            update={"name": "02.png", "sha256": "2" * 64, "generation": made, "decision": dropped}
        ),
    )


def _negatives(scene: Scene) -> dict[Difference, Scene]:
    """A hard negative by its place and one by its noun."""
    other = "street" if scene.place != "street" else "beach"
    subject = "robot" if scene.subject != "robot" else "person"
    return {
        "place": Scene(scene.subject, scene.pose, other),
        "noun": Scene(subject, scene.pose, scene.place),
    }


def small_adapter(
    text: str, *, paths: Sequence[str] = ("transformer_blocks.0.attn.to_q",), width: int = 32, rank: int = 8
) -> Adapter:
    """An adapter whose weights are drawn from `text`, for square Linears of `width` features."""
    draws = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]))
    weights = {
        path: (torch.randn(rank, width, generator=draws), torch.randn(width, rank, generator=draws))
        for path in paths
    }
    return Adapter(rank=rank, alpha=float(rank), weights=weights)


def picture(scene: Scene, seed: int, size: int = 64, broken: bool = False) -> torch.Tensor:
    """A render as [3, size, size], 0 to 1."""
    pixels = np.asarray(render(scene, seed, size, broken=broken), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


def curve(steps: int, finite: bool = True) -> tuple[CurvePoint, ...]:
    """A curve like those of the embedded base: noisy, falling, with preservation; NaN last if not finite."""
    rng = Random(7)
    points = [
        CurvePoint(
            step=step,
            loss=(0.16 + 0.3 * math.exp(-step / 70)) * rng.uniform(0.75, 1.3),
            preservation_loss=0.02 * (1 - math.exp(-step / 30)) * rng.uniform(0.6, 1.5),
            grad_norm=rng.uniform(0.1, 0.5),
            lr=1e-3,
        )
        for step in range(5, steps + 1, 5)
    ]
    return (*points, *(() if finite else (CurvePoint(step=steps, loss=math.nan, grad_norm=math.inf),)))


def scorecard(
    passed: bool, n: int, guards: Sequence[Scene], negatives: Mapping[Difference, Scene]
) -> Scorecard:
    """Figures of the size that the embedded base gives, judged by the real gate."""
    shift = -80.0 if passed else 12.0
    measured = Measurements(
        prompt_name="sample",
        n=n,
        n_training=8,
        n_held_out=8,
        pair_seeds=tuple(range(1000, 1000 + n)),
        settings=EvaluationSettings(images=max(n, 2), stop_early=False),
        nearer=tuple(_nearer(name, n, passed) for name in ("efficientnet_lite0", "opennsfw")),
        distances=(
            _distance("efficientnet_lite0", n, 171.3, shift),
            _distance("opennsfw", n, 133.8, shift),
        ),
        similarity=tuple(
            SimilarityScore(against="held-out", pairing=pairing, n=n, n_reference=8, side=64, ssim_base=0.418,
                            ssim_corrected=0.442, psnr_base=15.31, psnr_corrected=15.12)
            for pairing in ("all pairs", "best exemplar")
        ),
        diversity=(
            DiversityScore(measure="nearest other image in efficientnet_lite0", gates=True, n=n, base=11.6,
                           corrected=10.2, ratio=0.88),
        ),
        nearest_training=(
            NearestScore(extractor="efficientnet_lite0", through_vae=True, n=n, n_exemplars=16, percentile=95.0, bound=4.21,
                         near_base=0.0, near_corrected=0.03, median_base=12.0,
                         median_corrected=6.1, median_exemplars=5.9, training_base=0.5,
                         training_corrected=0.53, training_expected=0.5, preference_p=0.41),
        ),
        guards=tuple(_guard(canonical_prompt(scene), passed) for scene in guards),
        false_route=FalseRouteScore(
            n=4, kept_base=1.0, kept_corrected=0.5, change=0.62,
            drop=Interval(low=-0.068, value=0.5, high=0.85, method="Newcombe's for paired shares, over seed pairs"),
            negatives=tuple(_negative(canonical_prompt(scene), kind) for kind, scene in negatives.items()),
        ),
        safety=SafetyScore(scorer="opennsfw", threshold=0.5, n=n + 16, unsafe_base=0, unsafe_corrected=0,
                           highest_base=0.02, highest_corrected=0.03),
        sanity=SanityScore(n=2 * n + 32, faults=()),
        looks=(Look(n=n, most=n, share=1.0, decision="passed" if passed else "refused", why="all images were drawn"),),
        not_run=(NotRun(name="fid_inception", reason="its weights are not given"),),
    )  # fmt: skip
    thresholds = GateThresholds(min_images=2)
    return Scorecard(**dict(measured), thresholds=thresholds, verdict=judge(measured, thresholds))


def _distance(extractor: str, n: int, base: float, shift: float) -> DistanceScore:
    def around(value: float) -> Interval:
        return Interval(low=value - 31.4, value=value, high=value + 28.2)

    return DistanceScore(
        extractor=extractor, metric=f"fid_{extractor}", n=n, n_reference=8,
        fid_base=base, fid_base_interval=around(base), fid_difference=around(shift),
        fid_corrected=base + shift, fid_corrected_interval=around(base + shift),
        kid_base=0.212, kid_corrected=0.212 + shift / 500,
    )  # fmt: skip


def _nearer(extractor: str, n: int, passed: bool) -> NearerScore:
    return NearerScore(
        extractor=extractor, n=n, n_reference=8, permutations=2000,
        reduction=0.183 if passed else -0.021, p=0.0004998 if passed else 0.7131,
        restyled_reduction=0.094 if passed else -0.024, restyled_p=0.0004998 if passed else 0.7446,
    )  # fmt: skip


def _guard(prompt: str, passed: bool) -> GuardScore:
    kept = 1.0 if passed else 0.62
    note = f"100% of its images kept before, {kept:.0%} after"
    return GuardScore(
        prompt=prompt, n=8, kept_base=1.0, kept_corrected=kept, drop=1 - kept, lost=0 if passed else 3,
        change=0.21 if passed else 0.94, ssim=0.91 if passed else 0.55, passed=passed, note=note,
        kept_by_extractor={"efficientnet_lite0": (1.0, kept), "opennsfw": (1.0, kept)},
    )  # fmt: skip


def _negative(prompt: str, difference: Difference) -> HardNegativeScore:
    return HardNegativeScore(
        prompt=prompt, difference=difference, n=2, kept_base=1.0, kept_corrected=0.5, drop=0.5, change=0.62,
        ssim=0.71, note="recognised 100% before, 50% after; moved by 0.62 of what another seed moves; SSIM 0.71",
        kept_by_extractor={"efficientnet_lite0": (1.0, 0.5), "opennsfw": (1.0, 0.5)},
    )  # fmt: skip


SHOWN: tuple[tuple[Scene, Status], ...] = (
    (Scene("person", "lying", "grass"), "corrected"),
    (Scene("robot", "jumping", "street"), "corrected"),
    (Scene("dog", "sitting", "beach"), "rejected"),
    (Scene("cat", "running", "snow"), "failed"),
)

if __name__ == "__main__":
    for scene, status in SHOWN:
        write_record(Path(sys.argv[1]) / canonical_prompt(scene).replace(" ", "-") / "record", scene, status)
