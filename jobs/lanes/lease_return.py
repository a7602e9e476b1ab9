"""Returns the leases of a lane when its process is lost. Ray Train's controllers import this module, so it has few imports.

A lane that starts again also returns them. But after the loss of a node there may be no room to start it, while other lanes
have free slots.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import cloudpickle
from ray.train import UserCallback


class LeaseReturn(UserCallback):
    """Returns the leases when a worker of the lane is lost; runs in the controller of the lane's Ray Train run."""

    def __init__(self, queue: Any, lane: str) -> None:
        """`queue` is the actor of a `PromptQueue`."""
        # Ray imports an actor's class when its handle is unpickled; this delays it until a worker is lost.
        self._queue = cloudpickle.dumps(queue)
        self._lane = lane

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Return the leases before Ray Train waits for resources to start the lane again."""
        queue = cloudpickle.loads(self._queue)
        ray.get(queue.process_lost.remote(self._lane, brief(next(iter(worker_exceptions.values())))))


def brief(error: Exception) -> str:
    """An error in one line of at most 500 characters."""
    return " ".join(str(error).split())[:500] or type(error).__name__
