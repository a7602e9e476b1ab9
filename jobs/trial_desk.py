"""The queue of a search as an actor, in a module that costs nothing to import.

Ray loads an actor's class in every process that its handle comes to, so in every trial's, and `jobs.trial_queue` brings torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _passed_on(name: str) -> Callable[..., Any]:
    def method(desk: TrialDesk, *arguments: Any, **named: Any) -> Any:
        return getattr(desk.queue, name)(*arguments, **named)

    method.__name__ = name
    return method


class TrialDesk:
    """What trials, lanes and the driver ask of a `TrialQueue`, which is imported where the actor lives."""

    def __init__(self, groups: Any) -> None:
        """`groups` as `TrialQueue` takes them."""
        from jobs.trial_queue import TrialQueue

        self.queue = TrialQueue(groups)

    # The driver, and the fleet for it.
    waiting = _passed_on("waiting")
    snapshot = _passed_on("snapshot")
    confirm = _passed_on("confirm")
    complete = _passed_on("complete")
    stop = _passed_on("stop")
    # Trials, and Tune for them.
    open = _passed_on("open")
    look = _passed_on("look")
    close = _passed_on("close")
    # Lanes.
    claim = _passed_on("claim")
    report = _passed_on("report")
    restart = _passed_on("restart")
    deliver = _passed_on("deliver")
    closed = _passed_on("closed")
    is_complete = _passed_on("is_complete")
