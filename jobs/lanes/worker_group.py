"""The workers of one lane: one process by default, several where a base is too slow on one GPU. Knows no Ray.

All workers train the same fine-tunes and make the same steps, each with its part of the rows. Rank 0 decides whatever depends
on the clock or on the queue, and broadcasts it.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch

Value = TypeVar("Value")


class WorkerGroup(Protocol):
    """The workers of a lane as one of them sees them. Rank 0 talks to the queue and writes checkpoints."""

    rank: int
    size: int

    def broadcast(self, value: Value) -> Value:
        """Rank 0's value, on every worker; the values that the others pass are ignored."""

    def all_gather(self, value: Value) -> list[Value]:
        """Every worker's value in the order of ranks, on every worker."""


class SingleWorker:
    """A group of one worker."""

    rank = 0
    size = 1

    def broadcast(self, value: Value) -> Value:
        """`value`."""
        return value

    def all_gather(self, value: Value) -> list[Value]:
        """`[value]`."""
        return [value]


class DistributedWorkers:
    """The processes of torch.distributed's default group, which exchange decisions through gloo on the CPU.

    A decision that is broadcast over NCCL would wait for the step that the GPU still computes.
    """

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()
        self._group = torch.distributed.new_group(backend="gloo")

    def broadcast(self, value: Value) -> Value:
        """Rank 0's value, pickled and broadcast."""
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def all_gather(self, value: Value) -> list[Value]:
        """Every worker's value, pickled and gathered."""
        values = [value] * self.size
        torch.distributed.all_gather_object(values, value, group=self._group)
        return values


def current_worker_group() -> WorkerGroup:
    """The group that torch.distributed was initialised for; a single worker where it was not."""
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        return DistributedWorkers()
    return SingleWorker()
