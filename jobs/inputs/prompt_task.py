"""PromptTask: one prompt of a job.

Imports no torch: the queue's process, and each process that receives a task, imports this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corrector.errors import UserError
from corrector.exemplars.provenance import ExemplarSource
from corrector.prompts import FailingPrompt
from jobs.inputs.run_folder import PromptFolder

if TYPE_CHECKING:
    from corrector.base import ContentCache
    from corrector.evaluation.rungs import Rung
    from corrector.prompt_inputs import ExemplarImages


@dataclass(frozen=True)
class PromptTask:
    """One prompt of a job; passed between driver, queue, lane and scoring.

    Attributes:
        work_id: Content hash of the inputs that determine the result; equal work has an equal id.
        exemplars: The cache key of the decoded exemplars.
        folder: The prompt's files in the run's storage.
        sources: Where each exemplar came from and who decided about it; training, held out, then dropped.
        rungs: The rungs at which a trial of a search is scored while it trains; empty in a correction.
    """

    work_id: str
    entry: FailingPrompt
    exemplars: str
    folder: PromptFolder
    sources: tuple[ExemplarSource, ...] = ()
    rungs: tuple[Rung, ...] = ()

    @property
    def log_fields(self) -> dict[str, str]:
        """What log lines about it say; its adapter is registered under the prompt's name."""
        return {"prompt": self.entry.name, "adapter": self.entry.name}

    def load_exemplars(self, cache: ContentCache) -> ExemplarImages:
        """The decoded exemplars; raises UserError if they are not in the cache."""
        from corrector.prompt_inputs import ExemplarImages

        images = ExemplarImages.load(self.exemplars, cache)
        if images is None:
            raise UserError(
                f"{self.entry.name}: its exemplars are no longer in the cache; submit the batch again"
            )
        return images
