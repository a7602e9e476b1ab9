"""The job's queue: which prompt is waiting, which lane holds it, what came of it.

`PromptQueue` is plain Python and knows no Ray; `jobs.correct` runs it as an actor. Its state need not outlive the job: what is
finished lies in the run folder, and a prompt that was under way resumes from its own checkpoint wherever it is claimed next.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.inputs.batch import WorkItem

State = Literal["waiting", "training", "sampling", "sampled", "failed", "stopped"]
SETTLED = ("sampled", "failed", "stopped")
"""States in which no lane holds a prompt any more."""


@dataclass(frozen=True)
class Progress:
    """Where one prompt stands; `loss` is the latest that was fetched, None before the first."""

    work_id: str
    state: State
    step: int = 0
    steps: int = 0
    loss: float | None = None
    detail: str = ""


@dataclass
class _Entry:
    item: WorkItem
    progress: Progress
    lane: str | None = None
    deaths: int = 0


class PromptQueue:
    """A priority queue with leases.

    A claimed prompt is leased to its lane until the lane reports it sampled or failed. When the process of a lane is gone, its
    leases are given back (`jobs.lanes.leases`; a lane that starts again under the same name does so, too), so a prompt is not
    lost with its lane, nor waits until there is room for it again; a prompt that was held by a lane which died
    `max_deaths` times is failed rather than allowed to kill the next one.
    """

    def __init__(self, items: Sequence[WorkItem], *, max_deaths: int = 3) -> None:
        self._max_deaths = max_deaths
        self._entries: dict[str, _Entry] = {}
        self._waiting: list[tuple[int, int, str]] = []
        self._order: dict[str, int] = {}
        self._stopping = False
        for item in items:
            self.add(item)

    def add(self, item: WorkItem) -> None:
        """Put another prompt behind those of equal priority."""
        if item.work_id in self._entries:
            raise ValueError(f"work {item.work_id} ({item.entry.name}) is in the queue twice")
        steps = item.entry.hyperparameters.steps
        self._entries[item.work_id] = _Entry(item, Progress(item.work_id, "waiting", steps=steps))
        self._order[item.work_id] = len(self._order)
        self._push(item.work_id)

    def claim(self, lane: str, count: int, *, max_rank: int) -> list[WorkItem]:
        """Lease up to `count` waiting prompts of rank at most `max_rank`, highest priority first, to `lane`."""
        if self._stopping:
            return []
        claimed: list[WorkItem] = []
        passed: list[tuple[int, int, str]] = []
        while self._waiting and len(claimed) < count:
            key = heapq.heappop(self._waiting)
            entry = self._entries[key[2]]
            if entry.item.entry.hyperparameters.rank > max_rank:
                passed.append(key)
                continue
            entry.lane = lane
            entry.progress = Progress(
                entry.item.work_id, "training", steps=entry.item.entry.hyperparameters.steps
            )
            claimed.append(entry.item)
        for key in passed:
            heapq.heappush(self._waiting, key)
        return claimed

    def report(self, lane: str, progress: Iterable[Progress]) -> bool:
        """Record progress of prompts leased to `lane`; returns whether the lane should stop at its next step.

        Reports on prompts that the lane no longer holds are dropped: they come from a lane that was given up.
        """
        for each in progress:
            entry = self._entries[each.work_id]
            if entry.lane != lane:
                continue
            entry.progress = each
            if each.state in SETTLED:
                entry.lane = None
        return self._stopping

    def restart(self, lane: str, reason: str) -> list[str]:
        """Take back what `lane` holds because its process is gone; returns the names of prompts that were given up."""
        given_up = []
        for work_id, entry in self._entries.items():
            if entry.lane != lane:
                continue
            entry.lane = None
            entry.deaths += 1
            if entry.deaths >= self._max_deaths:
                detail = f"its lane died {entry.deaths} times while it was held; last: {reason}"
                entry.progress = Progress(work_id, "failed", detail=detail)
                given_up.append(entry.item.entry.name)
            else:
                entry.progress = Progress(work_id, "waiting", steps=entry.progress.steps)
                self._push(work_id)
        return given_up

    def stop(self) -> None:
        """Hand out nothing more and ask every lane to stop at its next step."""
        self._stopping = True

    def snapshot(self) -> list[Progress]:
        """Where every prompt stands, in the batch's order."""
        return [entry.progress for entry in self._entries.values()]

    def waiting(self) -> int:
        """How many prompts no lane holds."""
        return len(self._waiting)

    def _withdraw(self, work_id: str) -> None:
        """Let no lane claim a prompt that is waiting."""
        self._waiting = [key for key in self._waiting if key[2] != work_id]
        heapq.heapify(self._waiting)

    def _push(self, work_id: str) -> None:
        entry = self._entries[work_id]
        heapq.heappush(self._waiting, (-entry.item.entry.priority, self._order[work_id], work_id))
