"""The workers of one lane: one process by default, several where a base is too slow on one GPU. Imports no Ray.

All workers train the same fine-tunes and make the same steps, each with its part of the rows. Rank 0 makes the decisions that
depend on the clock or on the queue, and broadcasts them.
"""

from __future__ import annotations

from typing import TypeVar

import torch

Value = TypeVar("Value")


class WorkerGroup:
    """The processes of torch.distributed's default group, or this process alone where there is none.

    Decisions are broadcast through gloo on the CPU: over NCCL they would wait for the current step of the GPU.
    """

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        if torch.distributed.is_initialized():
            self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._group = torch.distributed.new_group(backend="gloo") if self.size > 1 else None

    def broadcast(self, value: Value) -> Value:
        """Rank 0's value; the values of the other ranks are ignored."""
        values = [value]
        if self.size > 1:
            torch.distributed.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def wait_for_all(self) -> None:
        """Return when every worker has called this."""
        if self.size > 1:
            torch.distributed.barrier(group=self._group)
