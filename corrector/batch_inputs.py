"""read_inputs: what a batch file names, read for a job, for its plan and for `python -m corrector.prompts check` alike."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from corrector.base.component_files import check_component_files
from corrector.base.resolve import find_base
from corrector.base.spec import BaseSpec
from corrector.errors import UserError
from corrector.exemplars.curation.decisions import Decisions
from corrector.exemplars.curation.dropping import without_dropped
from corrector.exemplars.exemplar_set import ExemplarSet
from corrector.exemplars.sources import load_source
from corrector.prompts import BatchError, BatchErrors, CorrectionBatch, load_batch
from corrector.settings import Settings


@dataclass(frozen=True)
class BatchInputs:
    """A checked batch file with its base, which is not loaded, and its exemplars.

    Attributes:
        exemplars: The exemplars of every prompt, by the prompt's name.
    """

    batch: CorrectionBatch
    spec: BaseSpec
    exemplars: dict[str, ExemplarSet]


def read_inputs(
    path: Path,
    *,
    base: str | None = None,
    find: Callable[[str], BaseSpec] = find_base,
    settings: Settings | None = None,
    decisions: Decisions | None = None,
) -> BatchInputs:
    """Read a batch file, the configurations and headers of its base, and all its exemplars, which are fetched where they lie
    elsewhere.

    Args:
        base: The base instead of the file's.
        find: Finds a base by its reference.
        settings: The environment's; default: read now.
        decisions: Decisions about exemplars; those that they drop are left out.

    Raises:
        BatchErrors: With every mistake in the file or in its exemplars.
        UserError: The base or the judge of images cannot be used.
    """
    batch = load_batch(path, settings=settings)
    spec = find(base or batch.base)
    check_component_files(spec)
    if batch.evaluation.judge is not None:
        from corrector.evaluation.verdicts import installed_judge  # imports PyTorch

        installed_judge(batch.evaluation.judge)
    exemplars: dict[str, ExemplarSet] = {}
    mistakes: list[BatchError] = []
    for entry in batch.prompts:
        hyper = entry.hyperparameters
        try:
            found = load_source(
                entry.exemplars,
                batch.path.parent,
                resolution=hyper.resolution or spec.resolution,
                seed=hyper.seed,
                fit=entry.exemplar_fit,
                settings=settings,
            )
            exemplars[entry.name] = without_dropped(found, decisions or Decisions())
        except UserError as error:
            mistakes.append(batch.mistake(entry, "exemplars", str(error).removeprefix("exemplars: ")))
    if mistakes:
        raise BatchErrors(mistakes)
    return BatchInputs(batch, spec, exemplars)
