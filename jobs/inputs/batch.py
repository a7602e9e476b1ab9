"""A batch as the job works on it: checked as a whole, every prompt with its content hash and folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corrector.base import BaseSpec, Precision, resolve_base
from corrector.errors import UserError
from corrector.exemplars import ExemplarSet, load_exemplars
from corrector.prompts import BatchError, BatchErrors, CorrectionBatch, FailingPrompt, load_batch
from corrector.settings import Settings
from jobs.inputs.run_folder import PromptFolder, RunFolder


@dataclass(frozen=True)
class WorkItem:
    """One prompt as a lane receives it.

    Attributes:
        work_id: Content hash; equal work has an equal one.
        exemplars: The cache key of the decoded exemplars.
        folder: The prompt's own folder in the run, on storage that every node sees.
    """

    work_id: str
    entry: FailingPrompt
    exemplars: str
    folder: str


@dataclass(frozen=True)
class PromptWork:
    """One prompt of the batch; equal `work_id` means equal result."""

    entry: FailingPrompt
    work_id: str
    folder: PromptFolder
    exemplars: ExemplarSet

    @property
    def exemplar_digests(self) -> dict[str, str]:
        """SHA-256 of every exemplar file that is used, by file name."""
        return {each.path.name: each.sha256 for each in (*self.exemplars.training, *self.exemplars.held_out)}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed of the exemplars."""
        return self.exemplars.notes


@dataclass(frozen=True)
class BatchWork:
    """Everything that a submission has to do, before Ray is asked for anything."""

    batch: CorrectionBatch
    spec: BaseSpec
    run: RunFolder
    prompts: tuple[PromptWork, ...]

    @property
    def missing(self) -> tuple[PromptWork, ...]:
        """The prompts that no earlier submission finished."""
        return tuple(work for work in self.prompts if not work.folder.is_finished)


def check_batch(
    path: Path,
    *,
    storage: Path,
    run: str | None = None,
    base: str | None = None,
    precision: Precision = "auto",
    settings: Settings | None = None,
) -> BatchWork:
    """Read and check a batch file, its base and all its exemplars.

    Args:
        settings: The environment's; default: read now.

    Raises:
        BatchErrors: With every mistake in the file or in its exemplars.
        UserError: The base or the run's name cannot be used.
    """
    batch = load_batch(path, settings=settings)
    spec = resolve_base(base or batch.base, precision=precision)
    run_folder = RunFolder(storage, run or path.stem)
    works: list[PromptWork] = []
    mistakes: list[BatchError] = []
    for entry in batch.prompts:
        hyper = entry.hyperparameters
        try:
            exemplars = load_exemplars(
                batch.exemplar_folder(entry), resolution=hyper.resolution or spec.resolution, seed=hyper.seed
            )
        except UserError as error:
            mistakes.append(batch.mistake(entry, "exemplars", str(error).removeprefix("exemplars: ")))
            continue
        works.append(_work(batch, entry, spec, exemplars, run_folder))
    if mistakes:
        raise BatchErrors(mistakes)
    return BatchWork(batch, spec, run_folder, tuple(works))


def _work(
    batch: CorrectionBatch, entry: FailingPrompt, spec: BaseSpec, exemplars: ExemplarSet, run: RunFolder
) -> PromptWork:
    digests = [each.sha256 for each in (*exemplars.training, *exemplars.held_out)]
    work_id = entry.work_id(spec.identity, digests, batch.evaluation, batch.gate)
    return PromptWork(entry, work_id, run.prompt(entry.name, work_id), exemplars)
