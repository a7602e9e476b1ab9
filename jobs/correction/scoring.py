"""Scorecard, gate and lineage of a sampled prompt: a Ray task that makes `sampled/` the prompt's `record/`.

Images are read back from the PNG files that people look at, base and corrected through the same decoder.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from corrector.adapters import file_sha256
from corrector.base import BaseSpec
from corrector.evaluation import GuardImages, HardNegativeImages, default_extractors, score
from corrector.exemplars import to_tensor
from corrector.prompts import EvaluationSettings, GateThresholds
from corrector.record.correction import ADAPTER_FOLDER, WEIGHTS_FILE, CorrectionRecord, GuardSamples
from corrector.registry.runs import REVIEW_PAGE
from corrector.report import write_report
from jobs.correction.sampling import DECODED_FILE, SAMPLED_FILE, read_decoded, read_sampled
from jobs.inputs.batch import PromptTask
from jobs.inputs.preparation import bound_threads
from jobs.inputs.run_folder import PromptFolder, remove_folder, replace_folder
from jobs.lanes.arms import Arms

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "ray")


@dataclass(frozen=True)
class ScoringSettings:
    """What is the same for all prompts of a batch: base, evaluation, gate, and the code that runs."""

    spec: BaseSpec
    evaluation: EvaluationSettings
    gate: GateThresholds
    code_version: str


def score_prompt(task: PromptTask, settings: ScoringSettings) -> None:
    """Score what a lane sampled and make it the prompt's record. Ray may run this again after any of its statements."""
    bound_threads(1)
    started = time.monotonic()
    folder = task.folder
    if not folder.is_sampled and _has_scored_record(
        folder
    ):  # an earlier run of this task ended after the rename
        _remove_lane_files(folder)
        return
    arms = Arms.of(task.entry, settings.evaluation)
    sampled = read_sampled(folder)
    images = CorrectionRecord.images(folder.sampled)
    guards = [
        GuardImages(prompt=prompt, base=_read(before), corrected=_read(after))
        for (prompt, _), (before, after) in zip(arms.guards, images.guards, strict=True)
    ]
    negatives = [
        HardNegativeImages(
            prompt=negative.prompt, base=_read(before), corrected=_read(after), difference=negative.difference
        )
        for negative, (before, after) in zip(sampled["hard_negatives"], images.negatives, strict=True)
    ]
    card = score(
        prompt_name=task.entry.name,
        base=_read(images.before),
        corrected=_read(images.after),
        training=_read(images.exemplars),
        held_out=_read(images.held_out),
        guards=guards,
        negatives=negatives,
        pair_seeds=[seed for _, seed in arms.own],
        decoded_exemplars=read_decoded(folder),
        extractors=default_extractors(),
        settings=settings.evaluation,
        thresholds=settings.gate,
    )
    seconds = {name: round(value, 2) for name, value in sampled["seconds"].items()}
    record = _record(
        task,
        settings,
        arms,
        status="corrected" if card.verdict.passed else "rejected",
        adapter_sha256=file_sha256(folder.sampled / ADAPTER_FOLDER / WEIGHTS_FILE),
        scorecard=card,
        curve=sampled["curve"],
        hard_negatives=sampled["hard_negatives"],
        seconds=seconds | {"scoring": round(time.monotonic() - started, 2)},
    )
    record.save(folder.sampled)
    job = {"base": record.base_name, "base revision": record.base_revision, "work": record.work_id}
    write_report(
        [(folder.sampled, record)], folder.sampled / REVIEW_PAGE, title=f"Review: {record.name}", job=job
    )
    replace_folder(folder.sampled, folder.record)
    _remove_lane_files(folder)


def write_failure(task: PromptTask, settings: ScoringSettings, reason: str) -> None:
    """Write the record of a prompt that could not be corrected; a record that was scored meanwhile stays."""
    folder = task.folder
    if _has_scored_record(folder):
        logger.warning("%s: keeps its record: %s", task.entry.name, reason)
        return
    remove_folder(folder.record)
    arms = Arms.of(task.entry, settings.evaluation)
    _record(task, settings, arms, status="failed", error=reason).save(folder.record)


def _has_scored_record(folder: PromptFolder) -> bool:
    return folder.is_recorded and CorrectionRecord.load(folder.record).status != "failed"


def _remove_lane_files(folder: PromptFolder) -> None:
    """Remove from the record what only scoring reads."""
    for name in (SAMPLED_FILE, DECODED_FILE):
        (folder.record / name).unlink(missing_ok=True)


def _read(paths: Sequence[Path]) -> Tensor:
    """Images [N, 3, H, W], values 0 to 1, of PNG files of one size."""
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(to_tensor(image.convert("RGB")))
    return torch.stack(images)


def _record(task: PromptTask, settings: ScoringSettings, arms: Arms, **outcome: Any) -> CorrectionRecord:
    return CorrectionRecord(
        name=task.entry.name,
        prompt=task.entry.prompt,
        work_id=task.work_id,
        entry=task.entry.model_dump(mode="json"),
        base_reference=settings.spec.reference,
        base_name=settings.spec.name,
        base_revision=settings.spec.revision,
        seeds=tuple(seed for _, seed in arms.own),
        sampled_prompts=tuple(prompt for prompt, _ in arms.own),
        guards=tuple(GuardSamples(prompt=prompt, seeds=seeds) for prompt, seeds in arms.guards),
        lineage={
            "exemplars": dict(task.exemplar_digests),
            "code_version": settings.code_version,
            "precision": settings.spec.precision,
            "training_seed": task.entry.hyperparameters.seed,
            "hyperparameters": task.entry.hyperparameters.model_dump(mode="json"),
            "evaluation": settings.evaluation.model_dump(mode="json"),
            "gate": settings.gate.model_dump(mode="json"),
            "packages": {name: version(name) for name in _PACKAGES},
        },
        **outcome,
    )
