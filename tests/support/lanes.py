"""Lanes in this process: work for them, and a queue that a test may stop or break."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from corrector.base import BaseSpec, ContentCache, resolve_base
from corrector.prompts import EvaluationSettings, FailingPrompt, HyperParameters
from corrector.storage import Storage
from jobs.correction.sampling import CorrectionPolicy, read_sampled
from jobs.inputs.batch import check_batch
from jobs.inputs.encoding import encode, split
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import PromptFolder
from jobs.lanes.lane import Lane, LaneSettings
from jobs.lanes.queue import Progress, PromptQueue

EVALUATION = EvaluationSettings(
    images=4,
    stop_early=False,
    guard_images=2,
    hard_negatives=2,
    hard_negative_images=3,
    num_inference_steps=2,
)
FEW_IMAGES = EVALUATION.model_copy(update={"images": 2, "guard_images": 1, "hard_negatives": 0})
"""For tests of training: to extract the features of images takes most of a small lane's time."""


class LocalClient:
    """The queue in this process, which a test may stop, or whose lane it may kill, after a number of reports."""

    def __init__(
        self, queue: PromptQueue, *, stop_after: int | None = None, die_after: int | None = None
    ) -> None:
        self._queue = queue
        self._stop_after = stop_after
        self._die_after = die_after
        self.reports = 0

    def claim(self, count: int, *, max_rank: int) -> list[PromptTask]:
        return self._queue.claim("lane", count, max_rank=max_rank)

    def report(self, progress: Iterable[Progress], *, wait: bool = False) -> bool:
        self.reports += 1
        if self._die_after is not None and self.reports > self._die_after:
            raise KeyboardInterrupt
        if self._stop_after is not None and self.reports >= self._stop_after:
            self._queue.stop()
        return self._queue.report("lane", progress)


def prompt_tasks(
    place: Storage | Path, spec: BaseSpec, names: Iterable[str], **hyper: object
) -> list[PromptTask]:
    """Tasks with random exemplars, prepared as the job's driver does it."""
    storage = Storage.of(place)
    cache = ContentCache(storage.below("cache"))
    tasks = []
    for seed, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed)
        side = spec.resolution
        images = {key: torch.rand(3, 3, side, side, generator=generator) for key in ("training", "held_out")}
        cache.put(f"exemplars-{name}", images)
        values: dict[str, object] = {
            "rank": 2,
            "steps": 6,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "seed": seed,
        }
        entry = FailingPrompt(
            name=name,
            prompt=f"{name} lying on the grass",
            exemplars="exemplars",
            paraphrases=(f"{name} on the grass",),
            guard_prompts=(f"{name} on the road",),
            hyperparameters=HyperParameters.model_validate(values | hyper),
        )
        tasks.append(
            PromptTask(
                f"work-{name}", entry, f"exemplars-{name}", PromptFolder(storage.below(f"prompts/{name}"))
            )
        )
    for share in split(tasks, EVALUATION, 1):
        encode(spec, share, storage.below("cache"), "cpu", 1)
    return tasks


def settings(
    place: Storage | Path, *, slots: int = 2, evaluation: EvaluationSettings = FEW_IMAGES
) -> LaneSettings:
    """A lane that saves and reports after every step."""
    return LaneSettings(
        slots=slots,
        rank=2,
        cache=Storage.of(place).below("cache"),
        evaluation=evaluation,
        report_every=1,
        checkpoint_seconds=0.0,
        report_seconds=0.0,
    )


def run_lane(
    place: Storage | Path,
    spec: BaseSpec,
    client: LocalClient,
    *,
    slots: int = 2,
    evaluation: EvaluationSettings = FEW_IMAGES,
) -> None:
    Lane(spec, client, settings(place, slots=slots, evaluation=evaluation), CorrectionPolicy).run()


def curve(task: PromptTask) -> list[float]:
    return [point["loss"] for point in read_sampled(task.folder)["curve"]]


def undisturbed(path: Path, storage: Path) -> dict[str, list[float]]:
    """Name -> the losses of the same batch, trained by a lane in this process."""
    work = check_batch(path, storage=storage, run="batch")
    work.run.create()
    spec = resolve_base(work.batch.base)
    work.store_exemplars(work.tasks)
    for share in split(work.tasks, work.batch.evaluation, 1):
        encode(spec, share, work.run.cache, "cpu", 1)
    settings = LaneSettings(slots=2, rank=2, cache=work.run.cache, evaluation=FEW_IMAGES)
    Lane(spec, LocalClient(PromptQueue(work.tasks)), settings, CorrectionPolicy).run()
    return {task.entry.name: curve(task) for task in work.tasks}
