"""Timing of several works against each other on a machine that may be busy with other things too."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from tests.benchmarks.machine import synchronise


@dataclass(frozen=True)
class Timing:
    """One work's seconds, round by round."""

    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The least disturbed round's seconds."""
        return min(self.rounds)

    @property
    def median(self) -> float:
        """The middle round's seconds."""
        return statistics.median(self.rounds)

    def over(self, other: "Timing") -> float:
        """How many times as long as ``other`` it took: the median of the rounds' own ratios."""
        return statistics.median(mine / its for mine, its in zip(self.rounds, other.rounds, strict=True))


def interleaved(
    works: Mapping[str, Callable[[], object]], *, device: torch.device, rounds: int, warmup: int = 1
) -> dict[str, Timing]:
    """Times every work once a round, in turn, after ``warmup`` rounds that do not count.

    Whatever else slows the machine slows all works of a round alike. The device is waited for before and after a
    work, and not in between.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warmup + rounds):
        for name, work in works.items():
            synchronise(device)
            start = time.perf_counter()
            work()
            synchronise(device)
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}
