"""From sampled images to a finished record: scorecard, gate and lineage. Runs as a Ray task, beside the lanes.

Images are read back from the PNG files that people will look at, both arms through the same decoder.
"""

from __future__ import annotations

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
from corrector.evaluation import GuardImages, HardNegativeImages, default_extractors, score
from corrector.exemplars import to_tensor
from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds
from corrector.record.correction import ADAPTER_FOLDER, WEIGHTS_FILE, CorrectionRecord, GuardSamples
from corrector.registry.runs import REVIEW_PAGE
from corrector.report import write_report
from jobs.inputs.preparation import bound_threads
from jobs.inputs.run_folder import PromptFolder, remove_folder
from jobs.lanes.arms import DECODED_FILE, SAMPLED_FILE, Arms, read_decoded, read_sampled

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "ray")


@dataclass(frozen=True)
class ScoringTask:
    """One sampled prompt and what its record says beside the images."""

    entry: FailingPrompt
    work_id: str
    folder: str
    base_reference: str
    base_name: str
    base_revision: str
    precision: str
    evaluation: EvaluationSettings
    gate: GateThresholds
    exemplar_digests: dict[str, str]
    code_version: str


def score_prompt(task: ScoringTask) -> None:
    """Score what a lane sampled and turn it into the prompt's record."""
    bound_threads(1)
    started = time.monotonic()
    folder = PromptFolder(Path(task.folder))
    arms = Arms.of(task.entry, task.evaluation)
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
        settings=task.evaluation,
        thresholds=task.gate,
    )
    seconds = {name: round(value, 2) for name, value in sampled["seconds"].items()}
    record = _record(
        task,
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
    remove_folder(folder.record)
    folder.sampled.rename(folder.record)
    for name in (SAMPLED_FILE, DECODED_FILE):
        (folder.record / name).unlink()


def write_failure(task: ScoringTask, reason: str) -> None:
    """Leave the record of a prompt that could not be corrected."""
    folder = PromptFolder(Path(task.folder))
    remove_folder(folder.record)
    _record(task, Arms.of(task.entry, task.evaluation), status="failed", error=reason).save(folder.record)


def _read(paths: Sequence[Path]) -> Tensor:
    """Images [N, 3, H, W], values 0 to 1, of PNG files of one size."""
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(to_tensor(image.convert("RGB")))
    return torch.stack(images)


def _record(task: ScoringTask, arms: Arms, **outcome: Any) -> CorrectionRecord:
    return CorrectionRecord(
        name=task.entry.name,
        prompt=task.entry.prompt,
        work_id=task.work_id,
        entry=task.entry.model_dump(mode="json"),
        base_reference=task.base_reference,
        base_name=task.base_name,
        base_revision=task.base_revision,
        seeds=tuple(seed for _, seed in arms.own),
        sampled_prompts=tuple(prompt for prompt, _ in arms.own),
        guards=tuple(GuardSamples(prompt=prompt, seeds=seeds) for prompt, seeds in arms.guards),
        lineage={
            "exemplars": task.exemplar_digests,
            "code_version": task.code_version,
            "precision": task.precision,
            "training_seed": task.entry.hyperparameters.seed,
            "hyperparameters": task.entry.hyperparameters.model_dump(mode="json"),
            "evaluation": task.evaluation.model_dump(mode="json"),
            "gate": task.gate.model_dump(mode="json"),
            "packages": {name: version(name) for name in _PACKAGES},
        },
        **outcome,
    )
