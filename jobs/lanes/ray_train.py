"""Lanes on Ray Train: each is one run of one worker or several, which Ray restarts when a process of it dies.

A thread of the driver calls the `fit` of each lane, so that lanes start, fail and end independently of each other.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.train import BackendConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from corrector.base import BaseSpec
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.ray_tasks import bound_threads
from jobs.lanes.lane import Lane, LaneSettings, PolicyFactory
from jobs.lanes.lease_return import LeaseReturn, brief
from jobs.lanes.queue import Progress
from jobs.lanes.worker_group import WorkerGroup

if TYPE_CHECKING:
    from corrector.record.search_results import RungReport
    from jobs.lanes.plan import LaneResources

logger = logging.getLogger(__name__)

TRAIN_ENVIRONMENT = {
    # A lane holds no state of Ray Train's, so a death should be noticed soon and nothing needs watching for preemption.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Lanes read the batch's relative paths from the job's folder.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class QueueClient:
    """The queue as one lane sees it, over Ray.

    A report is sent without waiting for the answer; the answer to the one before is read instead, so that a step never waits
    for the network.
    """

    def __init__(self, actor: Any, lane: str) -> None:
        self._actor = actor
        self._lane = lane
        self._pending: Any = None

    def claim(self, count: int, *, max_rank: int) -> list[PromptTask]:
        """Lease up to `count` prompts."""
        tasks: list[PromptTask] = ray.get(self._actor.claim.remote(self._lane, count, max_rank=max_rank))
        return tasks

    def report(self, progress: Iterable[Progress], *, wait: bool = False) -> bool:
        """Send progress; with `wait` the answer is that of this call."""
        stop = False if self._pending is None else bool(ray.get(self._pending))
        self._pending = self._actor.report.remote(self._lane, list(progress))
        if wait:
            stop = bool(ray.get(self._pending))
            self._pending = None
        return stop

    def return_leases(self, reason: str) -> list[str]:
        """Return the leases of a former lane of this name; returns the names of prompts that are failed for it."""
        failed: list[str] = ray.get(self._actor.return_leases.remote(self._lane, reason))
        return failed

    # The queue of a search alone has these.

    def deliver(self, work_id: str, report: RungReport) -> None:
        """Deliver a trial's score, and wait until it has arrived."""
        ray.get(self._actor.deliver.remote(work_id, report))

    def closed(self, held: Iterable[str]) -> list[str]:
        """Which of these trials are to end now."""
        found: list[str] = ray.get(self._actor.closed.remote(list(held)))
        return found

    def is_complete(self) -> bool:
        """Whether no further trial will come."""
        return bool(ray.get(self._actor.is_complete.remote()))


def start_queue(queue: type, *arguments: Any) -> Any:
    """Start a queue as an actor on the driver's node; it dies with the job."""
    node = ray.get_runtime_context().get_node_id()
    # Without hard affinity Ray places an actor that asks for no resources at random.
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(queue).options(num_cpus=0, scheduling_strategy=strategy).remote(*arguments)


class LaneTrainer(DataParallelTrainer):
    """Ray Train's trainer without the processes for which a lane has no use, each of which takes a second to start.

    A lane reads no Ray Data. The placement group cleaner asks the dashboard whether the controller lives, and a Ray
    instance of one command has no dashboard (`cluster.ray_hooks`).
    """

    def _create_default_callbacks(self) -> list[Any]:
        unused: tuple[type, ...] = (DatasetsCallback,)
        if os.environ.get("RAY_ADDRESS") == "local":
            unused = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [each for each in super()._create_default_callbacks() if not isinstance(each, unused)]


class LaneRun:
    """One lane from start to end, in a thread of the driver."""

    def __init__(
        self,
        name: str,
        queue: Any,
        spec: BaseSpec,
        settings: LaneSettings,
        resources: LaneResources,
        storage: Path,
        policy: PolicyFactory,
        *,
        after: Sequence[Any] = (),
        max_failures: int = 2,
    ) -> None:
        self.name = name
        self.error: str | None = None
        # A finished name would be resumed by Ray Train, so each submission's lanes have names of their own.
        run_config = RunConfig(
            name=f"{name}-{uuid.uuid4().hex[:8]}",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=[LeaseReturn(queue, name)],  # type: ignore[list-item] # annotated as in Train V1
        )
        scaling = ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker={"CPU": resources.cpus}
            | ({"GPU": resources.gpus} if resources.gpus else {}),
        )
        # Not Ray's `train_loop_config`: its controller reads that, too, and would have to import all that a lane does.
        train = partial(train_lane, name, queue, spec, settings, policy, resources.threads, after)
        self._trainer = LaneTrainer(
            train, backend_config=_backend(resources), scaling_config=scaling, run_config=run_config
        )
        self._thread = threading.Thread(target=self._fit, name=name, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the lane has neither ended nor failed for good."""
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Wait at most `seconds` for its end."""
        self._thread.join(seconds)

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:
            self.error = brief(error)
            logger.error("lane %s ended: %s", self.name, self.error)


def _backend(resources: LaneResources) -> BackendConfig:
    """torch.distributed for a lane of several workers; a lane of one needs none, and its controller no torch."""
    if resources.workers == 1:
        return BackendConfig()
    from ray.train.torch import TorchConfig

    return TorchConfig(backend="nccl" if resources.gpus else "gloo")


def train_lane(
    name: str,
    queue: Any,
    spec: BaseSpec,
    settings: LaneSettings,
    policy: PolicyFactory,
    threads: int,
    after: Sequence[Any] = (),
) -> None:
    """The Ray Train worker: loads the base, waits for the tasks of `after`, and works until the queue is empty."""
    bound_threads(threads)
    workers = WorkerGroup()
    client = QueueClient(queue, name)
    if workers.rank == 0:
        client.return_leases("its process ended")
    if settings.device == "cuda":
        from ray.train.torch import get_device

        settings = replace(settings, device=str(get_device()))
    lane = Lane(spec, client, settings, policy, workers)
    ray.get(list(after))
    lane.run()
