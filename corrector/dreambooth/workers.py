"""Data-parallel workers: processes that train the same fine-tunes, each on its share of a step's rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch.distributed
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """This process is worker ``rank`` of ``size``, joined by torch.distributed's default process group.

    All workers must admit, stop, release and step the same fine-tunes in the same order. They then hold the same weights,
    bit for bit, because each applies the same summed gradients to the same state.
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
        return self.size == 1

    def share(self, costs: Sequence[int]) -> tuple[int, int]:
        """This worker's share ``[start, stop)`` of items; item ``i`` costs ``costs[i]``.

        The workers' shares are consecutive, cover everything and cost nearly the same; some may be empty.
        """
        total = sum(costs)
        # An item belongs to the worker whose share of the total cost contains the item's middle.
        owners = [
            (start + stop) * self.size // (2 * total)
            for start, stop in pairwise(accumulate(costs, initial=0))
        ]
        start = sum(owner < self.rank for owner in owners)
        return start, start + owners.count(self.rank)

    def sum_(self, tensor: Tensor) -> None:
        """Replaces ``tensor`` by the sum over all workers, the same bits on each; does not wait for the device."""
        if not self.alone:
            torch.distributed.all_reduce(tensor)
