"""The workers of one lane: one process by default, several where a base is too slow on one GPU.

All of them hold the same fine-tunes and make the same steps, each with its share of the rows, so whatever depends on the clock
or on the queue is decided by the leader and told to the others. Knows no Ray.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch

Value = TypeVar("Value")


class Crew(Protocol):
    """What a lane needs to know of its workers; `rank` 0 leads."""

    rank: int
    size: int

    def share(self, value: Value) -> Value:
        """The leader's value, on every worker; what the others pass is ignored."""

    def gather(self, value: Value) -> list[Value]:
        """Every worker's value in the order of ranks, on every worker."""


class Alone:
    """A crew of one."""

    rank = 0
    size = 1

    def share(self, value: Value) -> Value:
        """`value`."""
        return value

    def gather(self, value: Value) -> list[Value]:
        """`[value]`."""
        return [value]


class Together:
    """The processes of torch.distributed's default group, which talk over their CPUs whatever that group is made of.

    A decision shared over NCCL would wait for the step that the GPU is still busy with.
    """

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()
        self._group = torch.distributed.new_group(backend="gloo")

    def share(self, value: Value) -> Value:
        """The leader's value, pickled and broadcast."""
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def gather(self, value: Value) -> list[Value]:
        """Every worker's value, pickled and gathered."""
        values = [value] * self.size
        torch.distributed.all_gather_object(values, value, group=self._group)
        return values


def crew_of_this_process() -> Crew:
    """The crew that torch.distributed was initialised for; this process alone where it was not."""
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        return Together()
    return Alone()
