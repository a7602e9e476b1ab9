"""The queue of a search: trials come as Tune starts them, their scores go back, and some end before their time.

Plain Python; `jobs.tuning.driver` runs it as an actor. Trials look here for their scores, lanes for trials.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from corrector.prompts import EvaluationSettings
from corrector.prompts.search import Configuration
from corrector.record.search import RungReport
from jobs.lanes.queue import SETTLED, Progress, PromptQueue, State
from jobs.tuning.trainable import TrialView
from jobs.tuning.trials import Outcome, TrialGroup, TrialItem

DECIDED = "decided"
"""Metric: whether the score was reported before, by a search that was interrupted, and the trial went on from there."""


class TrialQueue(PromptQueue):
    """A queue to which trials are added while lanes work, and from which they can be taken back."""

    def __init__(self, groups: Mapping[str, TrialGroup], *, max_deaths: int = 3) -> None:
        super().__init__([], max_deaths=max_deaths)
        self._groups = groups
        self._plans = {plan.entry.name: plan for group in groups.values() for plan in group.plans}
        self._reports: dict[str, list[RungReport]] = {}
        self._decided: dict[str, int] = {}
        self._closed: set[str] = set()
        self._complete = False

    def open(self, group: str, index: int, configuration: Configuration) -> tuple[str, ...]:
        """Begin trial `index` of a group, or go on with it where its journal ends; returns what its prompts are known by.

        What is open already, or has ended, is left as it is.
        """
        items = [plan.item(index, configuration) for plan in self._groups[group].plans]
        for item in items:
            if item.work_id not in self._entries:
                self._take_up(item)
        return tuple(item.work_id for item in items)

    def confirm(self, prompt: str, index: int, evaluation: EvaluationSettings) -> str:
        """Score a trial that has come to its end once more, as `evaluation` says; returns what it is known by."""
        plan = self._plans[prompt]
        item = plan.item(index, plan.trial_folder(index).configuration or {}, confirmation=evaluation)
        self._entries.pop(item.work_id, None)
        self._closed.discard(item.work_id)
        self._take_up(item)
        return item.work_id

    def deliver(self, work_id: str, report: RungReport) -> None:
        """Take in a trial's score, once, however often a lane that was restarted delivers it."""
        known = self._reports[work_id]
        if report.rung == len(known):
            known.append(report)

    def look(self, work_ids: Sequence[str], seen: int) -> TrialView:
        """What is new for a trial that knows the first `seen` scores of the prompts `work_ids`; a score is that of all."""
        rungs = list(zip(*(self._reports[work_id] for work_id in work_ids), strict=False))[seen:]
        decided = min(self._decided[work_id] for work_id in work_ids)
        progress = [self._entries[work_id].progress for work_id in work_ids]
        failed = [each.detail for each in progress if each.state == "failed"]
        return TrialView(
            metrics=tuple(_together(reports) | {DECIDED: reports[0].rung < decided} for reports in rungs),
            ended=self._stopping or all(each.state in SETTLED for each in progress),
            failure=failed[0] if failed else None,
        )

    def close(self, group: str, index: int) -> None:
        """Train a trial no further; what has ended of it, or never began, is left as it is.

        When the job is to stop, every trial ends for Tune, and none for good.
        """
        for plan in self._groups[group].plans:
            self._close(plan.trial_id(index))

    def closed(self, held: Iterable[str]) -> list[str]:
        """Which of the trials that a lane holds are to end now."""
        return [work_id for work_id in held if work_id in self._closed]

    def complete(self) -> None:
        """No further trial will come: lanes that have none may end."""
        self._complete = True

    def is_complete(self) -> bool:
        """Whether a lane without a trial need not wait for one."""
        return self._complete

    def restart(self, lane: str, reason: str) -> list[str]:
        """Take back what `lane` holds because its process is gone; what was to end anyway ends."""
        held = [work_id for work_id, entry in self._entries.items() if entry.lane == lane]
        given_up = super().restart(lane, reason)
        for work_id in self.closed(held):
            self._end(work_id)
        return given_up

    def _close(self, work_id: str) -> None:
        entry = self._entries.get(work_id)
        if self._stopping or entry is None or entry.progress.state in SETTLED:
            return
        self._closed.add(work_id)
        if entry.lane is None:
            self._end(work_id)

    def _end(self, work_id: str) -> None:
        item = self._entries[work_id].item
        assert isinstance(item, TrialItem)
        item.trial.end(Outcome(state="stopped"))
        self._settle(item, "stopped", "")

    def _take_up(self, item: TrialItem) -> None:
        """Add a trial; one whose journal says that it has ended is settled at once."""
        self.add(item)
        self._reports[item.work_id] = item.trial.reports[: len(item.rungs)]
        outcome = item.trial.outcome
        self._decided[item.work_id] = len(self._reports[item.work_id]) - (outcome is None)
        if outcome is not None:
            self._settle(item, outcome.state, outcome.detail)
        elif len(self._reports[item.work_id]) == len(item.rungs):
            self._settle(item, "sampled", "")

    def _settle(self, item: TrialItem, state: State, detail: str) -> None:
        self._withdraw(item.work_id)
        self._entries[item.work_id].progress = Progress(item.work_id, state, detail=detail)


def _together(reports: Sequence[RungReport]) -> dict[str, float]:
    """The metrics of a trial at one rung: the mean over its prompts, but their seconds together."""
    metrics = [report.metrics for report in reports]
    means = {key: fmean(each[key] for each in metrics) for key in metrics[0]}
    return means | {"seconds": sum(each["seconds"] for each in metrics)}
