"""A checked batch, with the content hash and the folder of every prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from corrector.base import BaseSpec, ContentCache, Precision, resolve_base
from corrector.batch_inputs import read_inputs
from corrector.exemplars import ExemplarSet
from corrector.exemplars.curation import Decisions
from corrector.prompt_inputs import ExemplarImages
from corrector.prompts import CorrectionBatch, FailingPrompt
from corrector.settings import Settings
from corrector.storage import Storage
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import RunFolder


@dataclass(frozen=True)
class BatchWork:
    """A checked submission; created before the job connects to Ray.

    Attributes:
        exemplars: The exemplars of every prompt, by the prompt's name.
        decisions: People's decisions about exemplars; the dropped ones are left out already.
        check_exemplars: Whether exemplars are checked when they are encoded.
    """

    batch: CorrectionBatch
    spec: BaseSpec
    run: RunFolder
    tasks: tuple[PromptTask, ...]
    exemplars: Mapping[str, ExemplarSet]
    decisions: Decisions
    check_exemplars: bool

    @property
    def missing(self) -> tuple[PromptTask, ...]:
        """The prompts that no earlier submission finished."""
        return tuple(task for task in self.tasks if not task.folder.registration.exists())

    def store_exemplars(self, tasks: Sequence[PromptTask]) -> None:
        """Write the decoded exemplars of `tasks` into the cache, from which encoding and lanes read them."""
        cache = ContentCache(self.run.cache)
        for task in tasks:
            ExemplarImages.of(self.exemplars[task.entry.name]).store(cache)


def check_batch(
    path: Path,
    *,
    storage: Storage | Path | str,
    run: str | None = None,
    base: str | None = None,
    precision: Precision = "auto",
    settings: Settings | None = None,
    decisions: Decisions | None = None,
    accept_exemplars: bool = True,
) -> BatchWork:
    """Read and check a batch file, its base and all its exemplars, which are fetched first where they lie elsewhere.

    Args:
        settings: The environment's; default: read now.
        decisions: Decisions about exemplars; those that they drop are left out.
        accept_exemplars: Whether sets that are not effective are accepted; else encoding refuses them.

    Raises:
        BatchErrors: With every mistake in the file or in its exemplars.
        UserError: The base, the run's name or the judge of images cannot be used.
    """
    decisions = decisions or Decisions()
    found = read_inputs(
        path,
        base=base,
        find=partial(resolve_base, precision=precision),
        settings=settings,
        decisions=decisions,
    )
    run_folder = RunFolder(storage, run or path.stem)
    tasks = tuple(
        _task(found.batch, entry, found.spec, found.exemplars[entry.name], run_folder)
        for entry in found.batch.prompts
    )
    return BatchWork(
        found.batch, found.spec, run_folder, tasks, found.exemplars, decisions, not accept_exemplars
    )


def _task(
    batch: CorrectionBatch,
    entry: FailingPrompt,
    spec: BaseSpec,
    exemplars: ExemplarSet,
    run: RunFolder,
) -> PromptTask:
    digests = [each.sha256 for each in (*exemplars.training, *exemplars.held_out)]
    work_id = entry.work_id(spec.identity, digests, batch.evaluation, batch.gate)
    return PromptTask(
        work_id=work_id,
        entry=entry,
        exemplars=ExemplarImages.of(exemplars).key,
        folder=run.prompt(entry.name, work_id),
        sources=exemplars.sources,
    )
