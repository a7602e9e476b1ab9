"""Which slot each row of a batch uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import gcd

import torch
from torch import Tensor

from corrector.adapters.transfer import copy_to_device

_STATIC_ROWS = 64
"""The length of a static plan is a multiple of this."""


@dataclass(frozen=True)
class RunPlan:
    """A batch as runs of rows: rows ``[start, stop)`` are ``groups`` runs of equal length with one slot each.

    Rows outside are the base's. Consecutive slots are a view (``first``); others are gathered once for each group
    (``gather``), which is once for each row where runs have no common length.
    """

    batch: int
    start: int
    stop: int
    groups: int
    rank: int
    """The highest rank of the slots; padding above it is not multiplied."""
    first: int
    gather: Tensor | None
    scale: Tensor | None
    """``[groups, 1, 1]`` float32, or None where every scale is 1."""

    @staticmethod
    def of(
        index: Sequence[int],
        ranks: Sequence[int],
        scales: Sequence[float],
        device: torch.device,
        *,
        row_wise: bool = False,
    ) -> "RunPlan":
        """The plan for slots ``index``; ``ranks`` and ``scales`` are by slot, 0 and 1 at slot 0.

        ``row_wise`` makes every row a run of its own.
        """
        adapted = [row for row, slot in enumerate(index) if slot]
        if not adapted:
            return RunPlan(len(index), 0, 0, 0, 0, 0, None, None)
        start, stop = adapted[0], adapted[-1] + 1
        runs = [(slot, len(list(run))) for slot, run in groupby(index[start:stop])]
        size = 1 if row_wise else gcd(*(length for _, length in runs))
        slots = list(index[start:stop:size])
        consecutive = slots == list(range(slots[0], slots[0] + len(slots)))
        factors = [scales[slot] for slot in slots]
        return RunPlan(
            batch=len(index),
            start=start,
            stop=stop,
            groups=len(slots),
            rank=max(ranks[slot] for slot in slots),
            first=slots[0],
            gather=None if consecutive else copy_to_device(torch.tensor(slots), device),
            scale=None
            if set(factors) == {1.0}
            else copy_to_device(torch.tensor(factors), device).view(-1, 1, 1),
        )


@dataclass(frozen=True)
class StaticPlan:
    """The slot of every row as a tensor whose length does not depend on the batch.

    A compiled block reads the slots from the tensor, so they are no part of its graph. Every row's weights are gathered
    at the bank's full rank.
    """

    batch: int
    slots: Tensor
    """int64, a multiple of 64 long; entries beyond ``batch`` are never read."""
    scales: Tensor
    """``[slots + 1]`` float32, by slot."""

    @staticmethod
    def of(index: Sequence[int], scales: Tensor) -> "StaticPlan":
        length = -(-len(index) // _STATIC_ROWS) * _STATIC_ROWS
        padded = torch.zeros(length, dtype=torch.int64)
        padded[: len(index)] = torch.tensor(index, dtype=torch.int64)
        return StaticPlan(len(index), copy_to_device(padded, scales.device), scales)


@dataclass
class Current:
    """The plan that a bank's layers use now; None outside ``rows()``."""

    plan: RunPlan | StaticPlan | None = None
