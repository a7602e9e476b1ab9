"""Lanes on Ray Train: a lane is a run with one or several workers, which Ray restarts when one of its processes dies.

The driver calls the `fit` of each lane in its own thread, so that lanes start, fail and end independently of each other.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray._private.log import PlainRayHandler
from ray.train import BackendConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from corrector.base import BaseSpec
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.ray_tasks import bound_threads
from jobs.lanes.lane import Lane, LaneSettings, PolicyFactory
from jobs.lanes.lease_return import LeaseReturn, brief
from jobs.lanes.metrics import LaneMetrics
from jobs.lanes.queue import Progress
from jobs.lanes.worker_group import WorkerGroup
from jobs.log_context import bind, logs_json

if TYPE_CHECKING:
    from corrector.record.search_results import RungReport
    from jobs.lanes.plan import LaneResources

logger = logging.getLogger(__name__)

TRAIN_ENVIRONMENT = {
    # Notice the death of a worker soon. `LanePool` watches for leaving nodes; Ray Train's watcher would be a process for each
    # lane.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Lanes read the batch's relative paths from the job's folder.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class QueueClient:
    """A lane's client of the queue's actor.

    A report is sent without waiting for its answer; the answer to the report before is read instead, so that a step does not
    wait for the network.
    """

    def __init__(self, actor: Any, lane: str) -> None:
        self._actor = actor
        self._lane = lane
        self._pending: Any = None

    def claim(self, count: int, *, max_rank: int) -> list[PromptTask]:
        tasks: list[PromptTask] = ray.get(self._actor.claim.remote(self._lane, count, max_rank=max_rank))
        return tasks

    def report(self, progress: Iterable[Progress], *, wait: bool = False) -> bool:
        """Send progress; returns whether to stop: the answer to this call with `wait`, otherwise to the call before."""
        stop = False if self._pending is None else bool(ray.get(self._pending))
        self._pending = self._actor.report.remote(self._lane, list(progress))
        if wait:
            stop = bool(ray.get(self._pending))
            self._pending = None
        return stop

    def return_leases(self, reason: str) -> list[str]:
        """Return the leases of an earlier process of this lane; returns the names of prompts that failed because of it."""
        failed: list[str] = ray.get(self._actor.return_leases.remote(self._lane, reason))
        return failed

    # Only the queue of a search has these methods.

    def deliver(self, work_id: str, report: RungReport) -> None:
        """Deliver a trial's score, and wait until it has arrived."""
        ray.get(self._actor.deliver.remote(work_id, report))

    def closed(self, held: Iterable[str]) -> list[str]:
        found: list[str] = ray.get(self._actor.closed.remote(list(held)))
        return found

    def is_complete(self) -> bool:
        return bool(ray.get(self._actor.is_complete.remote()))


def start_queue(queue: type, *arguments: Any) -> Any:
    """Start a queue as an actor on the driver's node; it dies with the job."""
    node = ray.get_runtime_context().get_node_id()
    # Without hard affinity Ray places an actor that asks for no resources at random.
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(queue).options(num_cpus=0, scheduling_strategy=strategy).remote(*arguments)


class LaneTrainer(DataParallelTrainer):
    """Ray Train's trainer without processes that a lane does not need; each takes a second to start.

    A lane does not use Ray Data. The placement group cleaner needs the dashboard, which the Ray instance of one command does
    not have (`cluster.ray_hooks`).
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
        storage: str,
        policy: PolicyFactory,
        *,
        after: Sequence[Any] = (),
        max_failures: int = 2,
    ) -> None:
        self.name = name
        self.error: str | None = None
        # Ray Train would resume a finished run of the same name, so each submission's lanes have new names.
        run_config = RunConfig(
            name=f"{name}-{uuid.uuid4().hex[:8]}",
            storage_path=storage,
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=[LeaseReturn(queue, name)],  # type: ignore[list-item] # annotated as in Train V1
        )
        scaling = ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker={"CPU": resources.cpus}
            | ({"GPU": resources.gpus} if resources.gpus else {}),
        )
        # Not in Ray's `train_loop_config`: the controller also reads that, and would import all modules of a lane.
        train = partial(train_lane, name, queue, spec, settings, policy, resources.threads, after)
        self._trainer = LaneTrainer(
            train, backend_config=_backend(resources), scaling_config=scaling, run_config=run_config
        )
        self._thread = threading.Thread(target=self._fit, name=name, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the lane has neither ended nor finally failed."""
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:
            self.error = brief(error)
            logger.error("lane %s ended: %s", self.name, self.error)


def _backend(resources: LaneResources) -> BackendConfig:
    """torch.distributed for several workers; a lane of one does not need it, and its controller does not import torch."""
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
    bind(lane=name)
    if logs_json():  # Ray Train writes these lines as JSON to a file; its handler for the console writes text
        logging.getLogger().handlers = [
            each for each in logging.getLogger().handlers if not isinstance(each, PlainRayHandler)
        ]
    workers = WorkerGroup()
    client = QueueClient(queue, name)
    ray.get(queue.place.remote(name, ray.get_runtime_context().get_node_id()))
    if workers.rank == 0:
        client.return_leases("its process ended")
    if settings.device == "cuda":
        from ray.train.torch import get_device

        settings = replace(settings, device=str(get_device()))
    observer = LaneMetrics(name, settings.slots, leader=workers.rank == 0)
    lane = Lane(spec, client, settings, policy, workers, observer)
    ray.get(list(after))
    lane.run()
