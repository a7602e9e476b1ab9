"""The queue of a search: Tune adds trials and reads their scores, and can close a trial early.

Does not use Ray; `jobs.tuning.driver` runs it as an actor. Imports no torch, since Ray imports an actor's class in every
process that receives its handle, including those of the trials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from jobs.lanes.queue import TERMINAL, Progress, PromptQueue
from jobs.tuning.trainable import TrialView

if TYPE_CHECKING:
    from corrector.prompts import EvaluationSettings
    from corrector.prompts.search_settings import Configuration
    from corrector.record.search_results import RungReport
    from jobs.inputs.prompt_task import PromptTask
    from jobs.tuning.plan import SearchGroup

DECIDED = "decided"
"""Metric: whether the score was reported before, by a search that was interrupted, and the trial went on from there."""
POLL_SECONDS = 0.3
"""Seconds between two checks for news on behalf of a trial's process."""
POLLS = 40
"""Checks before a process is told that there is no news, and asks again."""


class TrialQueue:
    """The trials of a search in a `PromptQueue`, with their scores, and the trials to close."""

    def __init__(self, groups: Mapping[str, SearchGroup], *, max_deaths: int = 3) -> None:
        self._queue = PromptQueue(max_deaths=max_deaths)
        self._groups = groups
        self._searches = {search.entry.name: search for group in groups.values() for search in group.searches}
        self._reports: dict[str, list[RungReport]] = {}
        self._decided: dict[str, int] = {}
        self._tasks: dict[str, PromptTask] = {}
        self._closed: set[str] = set()
        self._complete = False
        self._losses = 0

    def open(self, group: str, index: int, configuration: Configuration) -> tuple[str, ...]:
        """Begin trial `index` of a group, or resume it from its journal; returns the work ids, one per prompt.

        Does not change a trial that is already open or has ended.
        """
        tasks = [search.task(index, configuration) for search in self._groups[group].searches]
        for task in tasks:
            if task.work_id not in self._queue:
                self._add(task)
        return tuple(task.work_id for task in tasks)

    def confirm(self, prompt: str, index: int, evaluation: EvaluationSettings) -> str:
        """Score a finished trial once more, with the settings `evaluation`; returns its work id."""
        search = self._searches[prompt]
        configuration = search.trial_folder(index).configuration or {}
        task = search.task(index, configuration, confirmation=evaluation)
        self._queue.remove(task.work_id)
        self._closed.discard(task.work_id)
        self._add(task)
        return task.work_id

    def view(self, work_ids: Sequence[str], seen: int) -> TrialView:
        """The scores of a trial after the first `seen`, and whether it has ended; a score is the mean over its prompts."""
        rungs = list(zip(*(self._reports[work_id] for work_id in work_ids), strict=False))[seen:]
        decided = min(self._decided[work_id] for work_id in work_ids)
        progress = [self._queue.progress(work_id) for work_id in work_ids]
        failed = [each.detail for each in progress if each.state == "failed"]
        return TrialView(
            metrics=tuple(_mean_metrics(reports) | {DECIDED: reports[0].rung < decided} for reports in rungs),
            ended=self._queue.stopping or all(each.state in TERMINAL for each in progress),
            failure=failed[0] if failed else None,
        )

    async def news(self, work_ids: Sequence[str], seen: int) -> TrialView:
        """Wait some time for news, then return `view`: dozens of processes that poll every second would slow lanes down."""
        view = self.view(work_ids, seen)
        for _ in range(POLLS):
            if view.metrics or view.ended or view.failure is not None:
                break
            await asyncio.sleep(POLL_SECONDS)
            view = self.view(work_ids, seen)
        return view

    def close(self, group: str, index: int) -> None:
        """Stop the training of a trial, unless it has ended or not begun.

        When the job stops, Tune ends every trial, and none is closed, so that a resumed search can continue them.
        """
        for search in self._groups[group].searches:
            work_id = search.trial_id(index)
            if self._queue.stopping or work_id not in self._queue:
                continue
            if self._queue.progress(work_id).state not in TERMINAL:
                self._closed.add(work_id)
                if self._queue.holder(work_id) is None:
                    self._end(work_id)

    def complete(self) -> None:
        """Mark the search as complete: no further trial will come, and lanes without a trial may end."""
        self._complete = True

    # Methods for lanes.

    def claim(self, lane: str, count: int, *, max_rank: int) -> list[PromptTask]:
        """As `PromptQueue.claim`."""
        return self._queue.claim(lane, count, max_rank=max_rank)

    def report(self, lane: str, progress: Iterable[Progress]) -> bool:
        """As `PromptQueue.report`."""
        return self._queue.report(lane, progress)

    def return_leases(self, lane: str, reason: str) -> list[str]:
        """As `PromptQueue.return_leases`; closed trials that the lane held end."""
        held = [work_id for work_id in self._closed if self._queue.holder(work_id) == lane]
        failed = self._queue.return_leases(lane, reason)
        for work_id in held:
            self._end(work_id)
        return failed

    def process_lost(self, lane: str, reason: str) -> list[str]:
        """As `PromptQueue.process_lost`."""
        self._losses += 1
        return self.return_leases(lane, reason)

    def place(self, lane: str, node: str) -> None:
        """As `PromptQueue.place`."""
        self._queue.place(lane, node)

    def deliver(self, work_id: str, report: RungReport) -> None:
        """Record a trial's score; a repeated delivery by a lane that was restarted changes nothing."""
        known = self._reports[work_id]
        if report.rung == len(known):
            known.append(report)

    def closed(self, held: Iterable[str]) -> list[str]:
        """Those of the trials `held` that their lane must end."""
        return [work_id for work_id in held if work_id in self._closed]

    def is_complete(self) -> bool:
        """Whether a lane without a trial need not wait for one."""
        return self._complete

    # Methods for the driver and its lane pool.

    def stop(self) -> None:
        """As `PromptQueue.stop`."""
        self._queue.stop()

    def snapshot(self) -> list[Progress]:
        """As `PromptQueue.snapshot`."""
        return self._queue.snapshot()

    def scores(self, printed: Mapping[str, int]) -> dict[str, list[RungReport]]:
        """The scores of every trial after the first `printed[work_id]`; trials without such scores are left out."""
        found = {work_id: reports[printed.get(work_id, 0) :] for work_id, reports in self._reports.items()}
        return {work_id: reports for work_id, reports in found.items() if reports}

    def leave(self, nodes: Iterable[str]) -> None:
        """As `PromptQueue.leave`."""
        self._queue.leave(nodes)

    def release(self, lane: str) -> None:
        """As `PromptQueue.release`."""
        self._queue.release(lane)

    def waiting(self) -> int:
        """As `PromptQueue.waiting`."""
        return self._queue.waiting()

    def losses(self) -> int:
        """As `PromptQueue.losses`."""
        return self._losses

    def _end(self, work_id: str) -> None:
        from jobs.tuning.trials import Outcome, TrialFolder

        TrialFolder.of(self._tasks[work_id]).end(Outcome(state="stopped"))
        self._queue.settle(Progress(work_id, "stopped"))

    def _add(self, task: PromptTask) -> None:
        """Add a trial; settle it at once if its journal says that it has ended."""
        from jobs.tuning.trials import TrialFolder

        folder, name = TrialFolder.of(task), task.work_id
        self._queue.add(task)
        self._tasks[name] = task
        self._reports[name] = folder.reports[: len(task.rungs)]
        outcome = folder.outcome
        self._decided[name] = len(self._reports[name]) - (outcome is None)
        if outcome is not None:
            self._queue.settle(Progress(name, outcome.state, detail=outcome.detail))
        elif len(self._reports[name]) == len(task.rungs):
            self._queue.settle(Progress(name, "sampled"))


def _mean_metrics(reports: Sequence[RungReport]) -> dict[str, float]:
    """The metrics of a trial at one rung: the mean over its prompts, and the sum of their seconds."""
    metrics = [report.metrics for report in reports]
    means = {key: fmean(each[key] for each in metrics) for key in metrics[0]}
    return means | {"seconds": sum(each["seconds"] for each in metrics)}
