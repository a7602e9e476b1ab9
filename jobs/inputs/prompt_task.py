"""PromptTask: one prompt on its way through a job.

Imports no torch: the queue's process, and every process that receives a task, imports this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corrector.errors import UserError
from corrector.prompts import FailingPrompt
from jobs.inputs.run_folder import PromptFolder

if TYPE_CHECKING:
    from corrector.base import ContentCache
    from corrector.evaluation.rungs import Rung
    from corrector.prompt_inputs import ExemplarImages


@dataclass(frozen=True)
class PromptTask:
    """One prompt on its way through a job: driver, queue, lane and scoring pass this object on.

    Attributes:
        work_id: Content hash of all that determines the result; equal work has an equal one.
        exemplars: The cache key of the decoded exemplars.
        folder: The prompt's own folder in the run, on storage that every node sees.
        exemplar_digests: SHA-256 of every exemplar file that is used, by file name.
        rungs: Where a trial of a search is scored while it trains; empty in a correction.
    """

    work_id: str
    entry: FailingPrompt
    exemplars: str
    folder: PromptFolder
    exemplar_digests: Mapping[str, str]
    rungs: tuple[Rung, ...] = ()

    def load_exemplars(self, cache: ContentCache) -> ExemplarImages:
        """The decoded exemplars; a UserError says that they are not in the cache."""
        from corrector.prompt_inputs import ExemplarImages

        images = ExemplarImages.load(self.exemplars, cache)
        if images is None:
            raise UserError(
                f"{self.entry.name}: its exemplars are no longer in the cache; submit the batch again"
            )
        return images
