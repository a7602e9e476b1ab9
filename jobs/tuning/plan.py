"""A search checked as a whole before anything starts, prompt by prompt: its rungs, its trials so far, and where they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corrector.base import BaseSpec
from corrector.errors import UserError
from corrector.evaluation.features import named_extractor
from corrector.evaluation.rungs import rungs
from corrector.prompts import BatchError, BatchErrors, CorrectionBatch, SearchSettings
from corrector.prompts.search import Configuration
from corrector.prompts.search_space import configured, dimensions, highest
from jobs.inputs.batch import BatchWork, PromptWork, WorkItem
from jobs.lanes.plan import transformer_config
from jobs.tuning.trials import PromptPlan

_MORE_OF_THE_SAME = {"trials", "max_steps", "confirmed"}
"""Settings of a search that may change while its trials stay what they are."""


@dataclass(frozen=True)
class PromptSearchPlan:
    """One prompt of a search.

    Attributes:
        longest: The prompt as its largest trial trains it, by which lanes are planned.
        recorded: What the trials vary that have begun already, in their order.
    """

    work: PromptWork
    plan: PromptPlan
    longest: PromptWork
    recorded: tuple[Configuration, ...]


def check_search_work(work: BatchWork) -> None:
    """What only base, exemplars and installed packages can tell.

    Raises:
        BatchErrors: A rank above a layer's width, too few exemplars to hold any out, a metric whose weights are missing.
    """
    mistakes = list(_mistakes(work))
    if mistakes:
        raise BatchErrors(mistakes)


def _mistakes(work: BatchWork) -> Iterator[BatchError]:
    batch, search = work.batch, work.batch.search
    try:
        named_extractor(search.extractor)
    except UserError as error:
        yield batch.search_mistake("search.extractor", str(error))
    width = _width(work.spec)
    for each in work.prompts:
        held_out = len(each.exemplars.held_out)
        if held_out < 2:
            yield batch.mistake(
                each.entry,
                "exemplars",
                f"too few to hold any out: {held_out} of {held_out + len(each.exemplars.training)} held out, and a search "
                "needs 2 to measure distances to; add images",
            )
    ranks = {
        each.entry.name: highest(
            dimensions(search.space, each.entry), "rank", each.entry.hyperparameters.rank
        )
        for each in work.prompts
    }
    name, rank = max(ranks.items(), key=lambda pair: pair[1])
    if rank > width:
        yield batch.search_mistake(
            "search.space.rank",
            f"rank {rank:g} ({name}) is above the width of the base's layers, {width}: such an update has no more to say",
        )


def _width(spec: BaseSpec) -> int:
    config = transformer_config(spec)
    return int(str(config["num_attention_heads"])) * int(str(config["attention_head_dim"]))


def plan_search(work: BatchWork, items: Sequence[WorkItem], *, resume: bool) -> list[PromptSearchPlan]:
    """The search of every prompt of `work`, whose lanes' items are `items`.

    Raises:
        UserError: Trials of this search lie in the run's folder already, and `resume` is not set.
    """
    plans = [_plan(work, prompt, item.exemplars) for prompt, item in zip(work.prompts, items, strict=True)]
    begun = [each for each in plans if each.recorded]
    if begun and not resume:
        raise UserError(
            f"{Path(begun[0].plan.folder).parent}: trials of this search are here already; go on with them by --resume, or "
            "begin another with --run-id"
        )
    return plans


def journals(work: BatchWork) -> list[PromptPlan]:
    """Where the trials of `work` lie, for whoever reads and trains none."""
    return [_plan(work, prompt, "").plan for prompt in work.prompts]


def _plan(work: BatchWork, prompt: PromptWork, exemplars: str) -> PromptSearchPlan:
    batch, entry = work.batch, prompt.entry
    space = dimensions(batch.search.space, entry)
    own = entry.hyperparameters
    extremes: Configuration = {
        key: round(highest(space, key, getattr(own, key))) for key in ("rank", "steps", "batch_size")
    }
    steps = max(own.steps, round(highest(space, "steps", own.steps)))
    found = rungs(
        batch.search, batch.evaluation, steps=steps, num_inference_steps=work.spec.num_inference_steps
    )
    digest = search_digest(batch, prompt)
    folder = work.run.path / "trials" / f"{entry.name[:60]}-{digest[:12]}"
    plan = PromptPlan(digest, entry, exemplars, str(folder), found)
    longest = PromptWork(configured(entry, extremes), prompt.work_id, prompt.folder, prompt.exemplars)
    return PromptSearchPlan(prompt, plan, longest, recorded_configurations(plan))


def grouped(
    searches: Sequence[PromptSearchPlan], search: SearchSettings
) -> dict[str, list[PromptSearchPlan]]:
    """The prompts that are searched together, by a name for each group: each by itself, or all."""
    if search.scope == "batch":
        return {"batch": list(searches)}
    return {each.plan.entry.name: [each] for each in searches}


def search_digest(batch: CorrectionBatch, prompt: PromptWork) -> str:
    """SHA-256 in hexadecimal of all that determines a trial of `prompt` beside its own configuration."""
    search = batch.search.model_dump(mode="json", exclude=_MORE_OF_THE_SAME)
    content = json.dumps([prompt.work_id, search], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def recorded_configurations(plan: PromptPlan) -> tuple[Configuration, ...]:
    """What the trials that have begun vary, in their order."""
    found: list[Configuration] = []
    while (configuration := plan.trial_folder(len(found)).configuration) is not None:
        found.append(configuration)
    return tuple(found)
