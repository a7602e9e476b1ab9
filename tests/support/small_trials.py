"""Plans of small searches on the small SD3, with their exemplars and texts encoded as a job's driver does it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch

from corrector.base import BaseSpec, ContentCache
from corrector.evaluation.rungs import rungs
from corrector.prompts import (
    EvaluationSettings,
    FailingPrompt,
    GateThresholds,
    HyperParameters,
    SearchSettings,
)
from corrector.record.search_results import RungReport
from corrector.storage import Storage
from jobs.inputs.encoding import encode, split
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import PromptFolder
from jobs.lanes.lane import Lane, LaneObserver, LaneSettings
from jobs.lanes.queue import Progress
from jobs.tuning.lane import TrialPolicy, TrialSource
from jobs.tuning.plan import PromptSearch
from jobs.tuning.queue import TrialQueue

EVALUATION = EvaluationSettings(
    images=6, guard_images=2, hard_negatives=0, num_inference_steps=2, bootstrap=20, permutations=19
)
SEARCH = SearchSettings(rungs=2, reduction_factor=2, first_images=3)


def plan(
    folder: Path,
    spec: BaseSpec,
    name: str = "person",
    *,
    steps: int = 8,
    guards: tuple[str, ...] = ("person on the road",),
    evaluation: EvaluationSettings = EVALUATION,
) -> PromptSearch:
    """The search for one prompt with random exemplars."""
    generator = torch.Generator().manual_seed(len(name))
    side = spec.resolution
    cache = ContentCache(folder / "cache")
    images = {key: torch.rand(4, 3, side, side, generator=generator) for key in ("training", "held_out")}
    cache.put(f"exemplars-{name}", images)
    entry = FailingPrompt(
        name=name,
        prompt=f"{name} lying on the grass",
        exemplars="exemplars",
        guard_prompts=guards,
        hyperparameters=HyperParameters(rank=2, steps=steps, batch_size=2, learning_rate=1e-3),
    )
    place = PromptFolder(folder / "prompts" / name)
    task = PromptTask(f"work-{name}", entry, f"exemplars-{name}", place)
    for share in split([task], evaluation, 1):
        encode(spec, share, folder / "cache", "cpu", 1)
    found = rungs(SEARCH, evaluation, steps=steps, num_inference_steps=spec.num_inference_steps)
    return PromptSearch(task.work_id, entry, task.exemplars, Storage.of(folder / "trials" / name), found)


class LocalTrials:
    """A search's queue in this process, whose lane a test may kill after a number of scores."""

    def __init__(self, queue: TrialQueue, *, die_after: int | None = None) -> None:
        self._queue = queue
        self._die_after = die_after
        self.delivered: list[tuple[str, RungReport]] = []

    def claim(self, count: int, *, max_rank: int) -> list[PromptTask]:
        return self._queue.claim("lane", count, max_rank=max_rank)

    def report(self, progress: Iterable[Progress], *, wait: bool = False) -> bool:
        return self._queue.report("lane", progress)

    def deliver(self, work_id: str, report: RungReport) -> None:
        if self._die_after is not None and len(self.delivered) >= self._die_after:
            raise KeyboardInterrupt
        self.delivered.append((work_id, report))
        self._queue.deliver(work_id, report)

    def closed(self, held: Iterable[str]) -> list[str]:
        return self._queue.closed(held)

    def is_complete(self) -> bool:
        return self._queue.is_complete()


class CountedImages(LaneObserver):
    """Counts the images that a lane samples."""

    def __init__(self) -> None:
        self.images = 0

    def sampled(self, images: int) -> None:
        self.images += images


def run_lane(folder: Path, spec: BaseSpec, source: TrialSource, *, slots: int = 3) -> int:
    """One lane until nothing is left; returns how many images it sampled."""
    settings = LaneSettings(
        slots=slots,
        rank=4,
        cache=folder / "cache",
        evaluation=EVALUATION,
        report_every=1,
        report_seconds=0.0,
    )
    counted = CountedImages()
    policy = partial(TrialPolicy, search=SEARCH, gate=GateThresholds())
    Lane(spec, source, settings, policy, observer=counted).run()
    return counted.images
