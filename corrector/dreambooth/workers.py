"""Data-parallel workers: processes that advance the same fine-tunes together, each with its share of a step's rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch.distributed
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """The workers of a lane as one of them sees them: it is number ``rank`` of ``size``.

    They talk over torch.distributed's default process group, which must stand first where ``size`` is above 1. All must
    admit, stop, release and step the same fine-tunes in the same order; every one of them then holds the same weights,
    bit for bit, because each applies the same sums to the same state.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"worker {self.rank} is not one of {self.size}")
        if self.size == 1:
            return
        if not torch.distributed.is_initialized():
            raise ValueError(
                f"{self.size} workers need torch.distributed's process group; call init_process_group first"
            )
        group = (torch.distributed.get_rank(), torch.distributed.get_world_size())
        if group != (self.rank, self.size):
            raise ValueError(
                f"worker {self.rank} of {self.size} is number {group[0]} of {group[1]} in the process group"
            )

    @property
    def alone(self) -> bool:
        """Whether there is no other worker."""
        return self.size == 1

    def share(self, costs: Sequence[int]) -> tuple[int, int]:
        """This worker's things of all, ``[start, stop)``, where thing ``i`` costs ``costs[i]``.

        The workers' shares follow one another, leave nothing out and cost nearly the same; where there are fewer things
        than workers some are empty.
        """
        total = sum(costs)
        # A thing belongs to the worker in whose part of the whole cost its middle lies.
        owners = [
            (start + stop) * self.size // (2 * total)
            for start, stop in pairwise(accumulate(costs, initial=0))
        ]
        start = sum(owner < self.rank for owner in owners)
        return start, start + owners.count(self.rank)

    def sum_(self, tensor: Tensor) -> None:
        """Replaces ``tensor`` on every worker by the sum of all workers', the same bits on each; waits for no device."""
        if not self.alone:
            torch.distributed.all_reduce(tensor)
