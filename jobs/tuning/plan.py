"""The plan of a search, checked before it starts: the rungs and trial folders of each prompt, and the groups of prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from corrector.base import BaseSpec
from corrector.errors import UserError
from corrector.evaluation.features import named_extractor
from corrector.evaluation.rungs import Rung, rungs, rungs_of_trial
from corrector.prompts import (
    BatchError,
    BatchErrors,
    CorrectionBatch,
    EvaluationSettings,
    FailingPrompt,
    HyperParameters,
    SearchSettings,
)
from corrector.prompts.search_settings import Configuration
from corrector.prompts.search_space import configured, dimensions, highest
from corrector.storage import Storage
from jobs.inputs.batch import BatchWork
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import PromptFolder
from jobs.tuning.trials import TrialFolder

_CHANGEABLE = {"trials", "max_steps", "confirmed"}
"""Settings of a search that may change between submissions without changing its trials."""


@dataclass(frozen=True)
class PromptSearch:
    """The search for one prompt.

    Attributes:
        search_id: Hash of the inputs that determine its trials.
        exemplars: The cache key of the decoded exemplars.
        place: Contains a folder per trial.
        rungs: The rungs of the longest trial.
    """

    search_id: str
    entry: FailingPrompt
    exemplars: str
    place: Storage
    rungs: tuple[Rung, ...]

    def rungs_of(self, index: int) -> int:
        """The number of rungs of trial `index`, which must have begun."""
        return len(self.task(index, self.trial_folder(index).configuration or {}).rungs)

    def trial_id(self, index: int) -> str:
        """The work id of trial `index` in the queue."""
        return f"{self.search_id[:16]}-{index:03d}"

    def trial_folder(self, index: int) -> TrialFolder:
        """The journal of trial `index`."""
        return TrialFolder(self.place.below(f"{index:03d}"))

    def configurations(self) -> list[Configuration]:
        """The configurations of the trials that have begun, in their order, from the journals."""
        found: list[Configuration] = []
        while (configuration := self.trial_folder(len(found)).configuration) is not None:
            found.append(configuration)
        return found

    def task(
        self, index: int, configuration: Configuration, *, confirmation: EvaluationSettings | None = None
    ) -> PromptTask:
        """Trial `index` for the queue; with `confirmation`, it is scored again with these settings after its last rung."""
        entry = configured(self.entry, configuration)
        steps = entry.hyperparameters.steps
        further = () if confirmation is None else (Rung(steps, confirmation),)
        return PromptTask(
            work_id=self.trial_id(index),
            entry=entry,
            exemplars=self.exemplars,
            folder=PromptFolder(self.trial_folder(index).place),
            rungs=(*rungs_of_trial(self.rungs, steps), *further),
        )

    def largest(self, search: SearchSettings) -> HyperParameters:
        """The largest rank, steps and batch size of its trials, for the plan of the lanes."""
        space, own = dimensions(search.space, self.entry), self.entry.hyperparameters
        extremes: Configuration = {
            key: round(highest(space, key, getattr(own, key))) for key in ("rank", "steps", "batch_size")
        }
        return configured(self.entry, extremes).hyperparameters


@dataclass(frozen=True)
class SearchGroup:
    """The prompts that share the trials of Tune: one prompt, or all of a batch that is searched as a whole."""

    name: str
    searches: tuple[PromptSearch, ...]

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The rungs of the longest trial; their steps are the same for all prompts."""
        return self.searches[0].rungs

    def begin(self, index: int, configuration: Configuration) -> None:
        """Write the configuration of trial `index` into its journal, for every prompt."""
        for search in self.searches:
            search.trial_folder(index).begin(configuration)


def check_search_work(work: BatchWork) -> None:
    """Check the search against the base, the exemplars and the installed packages.

    Raises:
        BatchErrors: A rank above a layer's width, too few exemplars to hold any out, a metric whose weights are missing.
    """
    mistakes = list(_mistakes(work))
    if mistakes:
        raise BatchErrors(mistakes)


def plan_search(work: BatchWork, *, resume: bool) -> list[PromptSearch]:
    """The search of every prompt of `work`.

    Raises:
        UserError: The run's folder already has trials of this search, and `resume` is not set.
    """
    searches = prompt_searches(work)
    begun = next((each for each in searches if each.configurations()), None)
    if begun is not None and not resume:
        raise UserError(
            f"{work.run.place.root}: trials of this search are here already; go on with them by --resume, or "
            "begin another with --run-id"
        )
    return searches


def prompt_searches(work: BatchWork) -> list[PromptSearch]:
    """The search of every prompt of `work`, whether it has begun or not."""
    batch, found = work.batch, []
    for task in work.tasks:
        entry = task.entry
        own = entry.hyperparameters.steps
        steps = max(own, round(highest(dimensions(batch.search.space, entry), "steps", own)))
        search_id = _search_id(batch, task)
        found.append(
            PromptSearch(
                search_id=search_id,
                entry=entry,
                exemplars=task.exemplars,
                place=work.run.place.below(f"trials/{entry.name[:60]}-{search_id[:12]}"),
                rungs=rungs(
                    batch.search,
                    batch.evaluation,
                    steps=steps,
                    num_inference_steps=work.spec.num_inference_steps,
                ),
            )
        )
    return found


def grouped(searches: list[PromptSearch], search: SearchSettings) -> dict[str, SearchGroup]:
    """The groups by name: one per prompt, or one of all prompts."""
    if search.scope == "batch":
        return {"batch": SearchGroup("batch", tuple(searches))}
    return {each.entry.name: SearchGroup(each.entry.name, (each,)) for each in searches}


def _search_id(batch: CorrectionBatch, task: PromptTask) -> str:
    search = batch.search.model_dump(mode="json", exclude=_CHANGEABLE)
    content = json.dumps([task.work_id, search], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _mistakes(work: BatchWork) -> Iterator[BatchError]:
    batch, search = work.batch, work.batch.search
    try:
        named_extractor(search.extractor)
    except UserError as error:
        yield batch.search_mistake("search.extractor", str(error))
    width = _width(work.spec)
    for each in work.tasks:
        exemplars = work.exemplars[each.entry.name]
        held_out = len(exemplars.held_out)
        if held_out < 2:
            yield batch.mistake(
                each.entry,
                "exemplars",
                f"too few to hold any out: {held_out} of {held_out + len(exemplars.training)} held out, and a search "
                "needs 2 to measure distances to; add images",
            )
    ranks = {
        each.entry.name: highest(
            dimensions(search.space, each.entry), "rank", each.entry.hyperparameters.rank
        )
        for each in work.tasks
    }
    name, rank = max(ranks.items(), key=lambda pair: pair[1])
    if rank > width:
        yield batch.search_mistake(
            "search.space.rank",
            f"rank {rank:g} ({name}) is above the width of the base's layers, {width}: such an update has no more to say",
        )


def _width(spec: BaseSpec) -> int:
    config = spec.transformer_config
    return int(str(config["num_attention_heads"])) * int(str(config["attention_head_dim"]))
