"""The queue of a search as an actor, in a module that costs nothing to import.

Ray loads an actor's class in every process that receives its handle, so in every trial's; `jobs.tuning.queue` imports torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.tuning.trainable import TrialView

LOOK_SECONDS = 0.3
"""Between two looks at a trial on behalf of its process."""
PATIENCE = 40
"""Looks before a process is told that there is nothing new, and asks again."""


def _passed_on(name: str) -> Callable[..., Any]:
    def method(desk: TrialDesk, *arguments: Any, **named: Any) -> Any:
        return getattr(desk.queue, name)(*arguments, **named)

    method.__name__ = name
    return method


class TrialDesk:
    """What trials, lanes and the driver ask of a `TrialQueue`, which is imported where the actor lives."""

    def __init__(self, groups: Any) -> None:
        """`groups` as `TrialQueue` takes them."""
        from jobs.tuning.queue import TrialQueue

        self.queue = TrialQueue(groups)

    # The driver, and the pool for it.
    waiting = _passed_on("waiting")
    snapshot = _passed_on("snapshot")
    confirm = _passed_on("confirm")
    complete = _passed_on("complete")
    stop = _passed_on("stop")
    # Trials, and Tune for them.
    open = _passed_on("open")
    close = _passed_on("close")

    async def look(self, work_ids: Sequence[str], seen: int) -> TrialView:
        """The queue's answer as soon as there is news: dozens of processes that ask every second take a lane's time."""
        view: TrialView
        for _ in range(PATIENCE):
            view = self.queue.look(work_ids, seen)
            if view.metrics or view.ended or view.failure is not None:
                break
            await asyncio.sleep(LOOK_SECONDS)
        return view

    # Lanes.
    claim = _passed_on("claim")
    report = _passed_on("report")
    restart = _passed_on("restart")
    deliver = _passed_on("deliver")
    closed = _passed_on("closed")
    is_complete = _passed_on("is_complete")
