"""require_effective: refuses exemplars that curation calls not effective, before anything trains on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from corrector.base import ContentCache
from corrector.errors import UserError
from corrector.evaluation import FeatureMemory
from corrector.evaluation.verdicts import named_judge
from corrector.exemplars.curation import Decisions, curate_images
from corrector.exemplars.files import printable
from jobs.inputs.prompt_task import PromptTask

_NAMED = 5


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
        memory.recall(images)
        curation = curate_images(
            task.exemplar_digests, images, memory=memory, prompt=task.entry.prompt, decisions=decisions
        )
        memory.keep(images)
        if curation.grade != "not effective":
            continue
        found = [str(reason) for reason in curation.reasons if reason.grade == "not effective"]
        wrong = [each for each in curation.images if not each.used]
        found += [f"{printable(each.name)}: {'; '.join(map(str, each.reasons))}" for each in wrong[:_NAMED]]
        found += [f"and {len(wrong) - _NAMED} images more"] * (len(wrong) > _NAMED)
        refusals.append(f"{task.entry.name}: the exemplars are not effective\n  " + "\n  ".join(found))
    if refusals:
        raise UserError(
            "\n".join(refusals)
            + "\nlook at them with `python -m corrector.exemplars.curation FOLDER --page review.html`, and submit again with "
            "--decisions FILE, or with --accept-exemplars"
        )
