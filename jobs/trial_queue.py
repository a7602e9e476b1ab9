"""The queue of a search: trials come as Tune starts them, their scores go back, and some end before their time.

Plain Python; `jobs.search_driver` runs it as an actor. Trials look here for their scores, lanes for trials.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from corrector.prompts import EvaluationSettings
from corrector.prompts.search import Configuration
from corrector.registry.search_record import RungReport
from jobs.queue import SETTLED, Progress, PromptQueue, State
from jobs.trial_function import TrialView
from jobs.trials import Outcome, PromptPlan, TrialItem

DECIDED = "decided"
"""Metric: whether the score was reported before, by a search that was interrupted, and the trial went on from there."""


class TrialQueue(PromptQueue):
    """A queue to which trials are added while lanes work, and from which they can be taken back."""

    def __init__(self, plans: Mapping[str, PromptPlan], *, max_deaths: int = 3) -> None:
        super().__init__([], max_deaths=max_deaths)
        self._plans = plans
        self._reports: dict[str, list[RungReport]] = {}
        self._decided: dict[str, int] = {}
        self._closed: set[str] = set()
        self._complete = False

    def open(self, prompt: str, index: int, configuration: Configuration) -> str:
        """Begin trial `index` of a prompt, or go on with it where its journal ends; returns what it is known by.

        A trial that is open already, or has ended, is left as it is.
        """
        plan = self._plans[prompt]
        item = plan.item(index, configuration)
        if item.work_id not in self._entries:
            self._take_up(item)
        return item.work_id

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

    def look(self, work_id: str, seen: int) -> TrialView:
        """What is new for a trial that knows its first `seen` scores."""
        progress, decided = self._entries[work_id].progress, self._decided[work_id]
        return TrialView(
            metrics=tuple(
                report.metrics | {DECIDED: report.rung < decided} for report in self._reports[work_id][seen:]
            ),
            ended=self._stopping or progress.state in SETTLED,
            failure=progress.detail if progress.state == "failed" else None,
        )

    def close(self, work_id: str) -> None:
        """Train a trial no further; one that has ended, or never began, is left as it is.

        When the job is to stop, every trial ends for Tune, and none for good.
        """
        entry = self._entries.get(work_id)
        if self._stopping or entry is None or entry.progress.state in SETTLED:
            return
        self._closed.add(work_id)
        if entry.lane is None:
            self._end(work_id)

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
