"""The job's queue: the state of every prompt, and the lane that holds its lease.

Imports no torch, because Ray imports this module in every process that holds the actor's handle. `PromptQueue` does not
use Ray; `jobs.correction.driver` runs it as an actor. Its state is not saved: finished prompts are in the run folder,
and the next lane that claims one of the others resumes it from its checkpoint.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jobs.inputs.prompt_task import PromptTask

State = Literal["waiting", "training", "sampling", "sampled", "failed", "stopped"]
TERMINAL = ("sampled", "failed", "stopped")
"""States after which no lane holds a prompt."""


@dataclass(frozen=True)
class Progress:
    """The state of one prompt; `loss` is the latest that was fetched, None before the first."""

    work_id: str
    state: State
    step: int = 0
    steps: int = 0
    loss: float | None = None
    detail: str = ""


@dataclass
class _Entry:
    task: PromptTask
    progress: Progress
    lane: str | None = None
    deaths: int = 0


class PromptQueue:
    """A priority queue with leases.

    A claimed prompt is leased to its lane until the lane reports a terminal state. When a process of the lane is lost, its
    leases are returned (by `jobs.lanes.lease_return`, and by a lane that starts again under the same name), so that other
    lanes can claim the prompts. A prompt whose lane died `max_deaths` times while it was leased is failed.
    """

    def __init__(self, tasks: Sequence[PromptTask] = (), *, max_deaths: int = 3) -> None:
        self._max_deaths = max_deaths
        self._entries: dict[str, _Entry] = {}
        self._waiting: list[tuple[int, int, int, str]] = []
        self._order: dict[str, int] = {}
        self.stopping = False
        self._losses = 0
        self._nodes: dict[str, set[str]] = {}
        self._leaving: set[str] = set()
        for task in tasks:
            self.add(task)

    def __contains__(self, work_id: str) -> bool:
        return work_id in self._entries

    def add(self, task: PromptTask) -> None:
        """Add a prompt. Of equal priority, those with more steps are leased first, so that lanes end together."""
        if task.work_id in self._entries:
            raise ValueError(f"work {task.work_id} ({task.entry.name}) is in the queue twice")
        steps = task.entry.hyperparameters.steps
        self._entries[task.work_id] = _Entry(task, Progress(task.work_id, "waiting", steps=steps))
        self._order[task.work_id] = len(self._order)
        self._push(task.work_id)

    def claim(self, lane: str, count: int, *, max_rank: int) -> list[PromptTask]:
        """Lease up to `count` waiting prompts of rank at most `max_rank`, in the order of `add`, to `lane`."""
        if self.must_stop(lane):
            return []
        claimed: list[PromptTask] = []
        passed: list[tuple[int, int, int, str]] = []
        while self._waiting and len(claimed) < count:
            key = heapq.heappop(self._waiting)
            entry = self._entries[key[-1]]
            hyper = entry.task.entry.hyperparameters
            if hyper.rank > max_rank:
                passed.append(key)
                continue
            entry.lane = lane
            entry.progress = Progress(entry.task.work_id, "training", steps=hyper.steps)
            claimed.append(entry.task)
        for key in passed:
            heapq.heappush(self._waiting, key)
        return claimed

    def report(self, lane: str, progress: Iterable[Progress]) -> bool:
        """Record progress of prompts leased to `lane`; returns whether the lane should stop at its next step.

        Reports on prompts that are not leased to the lane are dropped: their leases were returned.
        """
        for each in progress:
            entry = self._entries[each.work_id]
            if entry.lane != lane:
                continue
            entry.progress = each
            if each.state in TERMINAL:
                entry.lane = None
        return self.must_stop(lane)

    def place(self, lane: str, node: str) -> None:
        """Note that a worker of `lane` is on the Ray node with this id."""
        self._nodes.setdefault(lane, set()).add(node)

    def leave(self, nodes: Iterable[str]) -> None:
        """Let lanes with a worker on one of `nodes` stop at their next step, so that they save before the node leaves."""
        self._leaving = set(nodes)

    def must_stop(self, lane: str) -> bool:
        """Whether the lane shall save its prompts and end."""
        return self.stopping or not self._leaving.isdisjoint(self._nodes.get(lane, ()))

    def release(self, lane: str) -> None:
        """Return the leases of a lane that has saved its prompts and ended."""
        for work_id, entry in self._entries.items():
            if entry.lane == lane:
                entry.lane = None
                entry.progress = Progress(work_id, "waiting", entry.progress.step, entry.progress.steps)
                self._push(work_id)

    def return_leases(self, lane: str, reason: str) -> list[str]:
        """Return the leases of a lost lane; returns the names of prompts that failed because too many of their lanes died."""
        failed = []
        for work_id, entry in self._entries.items():
            if entry.lane != lane:
                continue
            entry.lane = None
            entry.deaths += 1
            if entry.deaths >= self._max_deaths:
                detail = f"its lane died {entry.deaths} times while it was held; last: {reason}"
                entry.progress = Progress(work_id, "failed", detail=detail)
                failed.append(entry.task.entry.name)
            else:
                entry.progress = Progress(work_id, "waiting", steps=entry.progress.steps)
                self._push(work_id)
        return failed

    def process_lost(self, lane: str, reason: str) -> list[str]:
        """As `return_leases`, when a process of the lane was lost; Ray Train may start it again."""
        self._losses += 1
        return self.return_leases(lane, reason)

    def losses(self) -> int:
        """How often a process of a lane was lost."""
        return self._losses

    def stop(self) -> None:
        """Lease nothing more; lanes stop at their next step."""
        self.stopping = True

    def snapshot(self) -> list[Progress]:
        """The state of every prompt, in the batch's order."""
        return [entry.progress for entry in self._entries.values()]

    def waiting(self) -> int:
        """How many prompts wait for a lane."""
        return len(self._waiting)

    def progress(self, work_id: str) -> Progress:
        """The state of one prompt."""
        return self._entries[work_id].progress

    def holder(self, work_id: str) -> str | None:
        """The lane that holds a prompt's lease; None where none does."""
        return self._entries[work_id].lane

    def settle(self, progress: Progress) -> None:
        """Set the terminal state of a prompt that no lane holds."""
        self._withdraw(progress.work_id)
        self._entries[progress.work_id].progress = progress

    def remove(self, work_id: str) -> None:
        """Remove a prompt that no lane holds."""
        self._withdraw(work_id)
        self._entries.pop(work_id, None)

    def _withdraw(self, work_id: str) -> None:
        self._waiting = [key for key in self._waiting if key[-1] != work_id]
        heapq.heapify(self._waiting)

    def _push(self, work_id: str) -> None:
        entry = self._entries[work_id]
        wanted = entry.task.entry
        key = (-wanted.priority, -wanted.hyperparameters.steps, self._order[work_id], work_id)
        heapq.heappush(self._waiting, key)
