"""require_effective: refuses exemplars that curation calls not effective, before anything trains on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from corrector.base import ContentCache
from corrector.errors import UserError
from corrector.evaluation import FeatureMemory
from corrector.evaluation.verdicts import named_judge
from corrector.exemplars.curation import REVIEW, Decisions, curate_images
from corrector.exemplars.provenance import used_digests
from jobs.inputs.prompt_task import PromptTask


def require_effective(
    tasks: Sequence[PromptTask], cache: ContentCache, decisions: Decisions, judge: str | None
) -> None:
    """Judge the exemplars of `tasks`; features are kept in `cache` for the next submission.

    Args:
        judge: Name of the judge of images that is asked about each, if any.

    Raises:
        UserError: Sets are not effective; with every one of them and its images.
    """
    memory, refusals = FeatureMemory(judge=named_judge(judge), cache=cache), []
    for task in tasks:
        exemplars = task.load_exemplars(cache)
        images = torch.cat([exemplars.training, exemplars.held_out])
        curation = curate_images(
            used_digests(task.sources), images, memory=memory, prompt=task.entry.prompt, decisions=decisions
        )
        refusals.append(curation.refusal(task.entry.name))
    if any(refusals):
        remedy = f"{REVIEW}, and submit again with --decisions FILE, or with --accept-exemplars"
        raise UserError("\n".join([*filter(None, refusals), remedy]))
