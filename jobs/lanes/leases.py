"""What a lane held is given back as soon as its process is gone, in a module that costs Ray Train's controllers nothing.

The lane itself gives it back when it starts again, but that may be never: after the loss of a node there need not be room for
it, while other lanes have free slots.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import cloudpickle
from ray.train import UserCallback


class LeaseReturn(UserCallback):
    """Tells the queue that the worker of a lane is gone; runs in the controller of the lane's Ray Train run."""

    def __init__(self, queue: Any, lane: str) -> None:
        """`queue` is the actor of a `PromptQueue`."""
        # Ray loads an actor's class wherever its handle is unpacked, and the queue's is not needed unless a worker is lost.
        self._queue = cloudpickle.dumps(queue)
        self._lane = lane

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Give back all that the lane held, before Ray Train looks for room to start it again."""
        queue = cloudpickle.loads(self._queue)
        ray.get(queue.restart.remote(self._lane, brief(next(iter(worker_exceptions.values())))))


def brief(error: Exception) -> str:
    """An error in one line of at most 500 characters."""
    return " ".join(str(error).split())[:500] or type(error).__name__
