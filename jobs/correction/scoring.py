"""A Ray task that adds scorecard, gate and lineage to a prompt's `sampled/` and renames it to `record/`."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from corrector.base import BaseSpec
from corrector.errors import UserError
from corrector.evaluation import Comparison, Exemplars, FeatureMemory
from corrector.evaluation.score import score
from corrector.evaluation.verdicts import named_judge
from corrector.exemplars import to_tensor
from corrector.files import file_sha256
from corrector.prompts import EvaluationSettings, GateThresholds
from corrector.record.correction_record import ADAPTER_FOLDER, WEIGHTS_FILE, CorrectionRecord
from corrector.record.writing import correction_record
from corrector.registry.mlflow_run import REVIEW_PAGE
from corrector.report import write_report
from jobs.correction.sampling import (
    DECODED_FILE,
    FEATURES_FILE,
    drawn_comparison,
    read_decoded,
    read_sampled,
)
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.ray_tasks import bound_threads
from jobs.inputs.run_folder import SAMPLED_FILE, PromptFolder
from jobs.log_context import log_context

logger = logging.getLogger(__name__)

LANE_FILES = (SAMPLED_FILE, DECODED_FILE, FEATURES_FILE)
"""Files that only scoring reads; they are not in the record."""


@dataclass(frozen=True)
class ScoringSettings:
    """Settings that all prompts of a batch share: base, evaluation, gate, and the version of the code."""

    spec: BaseSpec
    evaluation: EvaluationSettings
    gate: GateThresholds
    code_version: str


def score_prompt(task: PromptTask, settings: ScoringSettings) -> None:
    """Score the images in `sampled/` and make it the prompt's record. Ray may interrupt this anywhere and run it again.

    Images are read from the PNG files that people look at.
    """
    with log_context(**task.log_fields):
        _score(task, settings)


def _score(task: PromptTask, settings: ScoringSettings) -> None:
    bound_threads(1)
    started = time.monotonic()
    folder = task.folder
    if not folder.sampled.fetch():
        if _has_scored_record(folder):  # an earlier run of this task made the record
            for name in LANE_FILES:
                (folder.record.path / name).unlink(missing_ok=True)
            return
        raise UserError(f"{folder.sampled.url}: is missing; submit the batch again")
    sampled = read_sampled(folder)
    comparison = drawn_comparison(task, settings.evaluation, sampled)
    path, memory = folder.sampled.path, FeatureMemory(judge=named_judge(settings.evaluation.judge))
    memory.load(path / FEATURES_FILE)
    images = CorrectionRecord.images(path)
    before, after = (
        torch.cat([_read(own), *(_read(pair[side]) for pair in (*images.guards, *images.negatives))])
        for side, own in enumerate((images.before, images.after))
    )
    card = score(
        task.entry.name,
        comparison,
        before,
        after,
        Exemplars(_read(images.exemplars), _read(images.held_out), read_decoded(folder)),
        settings=settings.evaluation,
        thresholds=settings.gate,
        memory=memory,
        looks=sampled["looks"],
        guard_shifts=sampled["guard_shifts"],
        negative_shifts=sampled["negative_shifts"],
    )
    seconds = {name: round(value, 2) for name, value in sampled["seconds"].items()}
    record = _record(
        task,
        settings,
        comparison,
        status="corrected" if card.verdict.passed else "rejected",
        adapter_sha256=file_sha256(path / ADAPTER_FOLDER / WEIGHTS_FILE),
        scorecard=card,
        curve=sampled["curve"],
        hard_negatives=comparison.negatives,
        cost=sampled["cost"],
        seconds=seconds | {"scoring": round(time.monotonic() - started, 2)},
    )
    record.save(path)
    job = {"base": record.base_name, "base revision": record.base_revision, "work": record.work_id}
    write_report([(path, record)], path / REVIEW_PAGE, title=f"Review: {record.name}", job=job)
    folder.sampled.rename(folder.record, without=LANE_FILES)
    folder.record.forget()


def write_failure(task: PromptTask, settings: ScoringSettings, reason: str) -> None:
    """Write the record of a prompt that could not be corrected; an existing scored record stays."""
    folder = task.folder
    if _has_scored_record(folder):
        logger.warning("%s: keeps its record: %s", task.entry.name, reason)
        return
    folder.record.remove()
    comparison = Comparison.of(task.entry, settings.evaluation)
    _record(task, settings, comparison, status="failed", error=reason).save(folder.record.path)
    folder.record.store()


def _record(
    task: PromptTask, settings: ScoringSettings, comparison: Comparison, **outcome: Any
) -> CorrectionRecord:
    return correction_record(
        task.entry,
        settings.spec,
        comparison,
        work_id=task.work_id,
        evaluation=settings.evaluation,
        gate=settings.gate,
        exemplars=task.sources,
        code=settings.code_version,
        **outcome,
    )


def _has_scored_record(folder: PromptFolder) -> bool:
    return folder.record.fetch() and CorrectionRecord.load(folder.record.path).status != "failed"


def _read(paths: Sequence[Path]) -> Tensor:
    """Images [N, 3, H, W], values 0 to 1, of PNG files of one size."""
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(to_tensor(image.convert("RGB")))
    return torch.stack(images)
