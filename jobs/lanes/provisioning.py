"""The start of every job that trains: connect to Ray, plan the lanes, encode texts and exemplars."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import ray
from rich.console import Console

from corrector.base import check_transformer
from corrector.prompts import HyperParameters
from jobs.inputs.batch import BatchWork, PromptTask
from jobs.inputs.encoding import EncodingDevice, encode_batch
from jobs.inputs.ray_tasks import get_results
from jobs.lanes.plan import LaneDevice, LaneLimits, LanePlan, inspect_device, plan_lanes
from jobs.lanes.ray_train import TRAIN_ENVIRONMENT


def connect() -> None:
    """Connect to the running Ray cluster, or start Ray on this machine."""
    if not ray.is_initialized():
        environment = {"env_vars": TRAIN_ENVIRONMENT}
        ray.init(log_to_driver=False, logging_level=logging.WARNING, runtime_env=environment)


def plan_on_cluster(
    work: BatchWork, fine_tunes: Sequence[HyperParameters], limits: LaneLimits, console: Console
) -> LanePlan:
    """Plan the lanes for `fine_tunes`, by measurements on a machine of the cluster, and print the plan."""
    cluster: dict[str, float] = ray.cluster_resources()
    kind = "cuda" if cluster.get("GPU", 0) >= 1 else "cpu"
    get_results(
        [ray.remote(check_transformer).options(num_cpus=1).remote(work.spec)]
    )  # before any device is asked for
    task = ray.remote(inspect_device).options(num_cpus=1, num_gpus=1 if kind == "cuda" else 0)
    device: LaneDevice = get_results([task.remote(work.spec, kind)])[0]
    plan = plan_lanes(work, fine_tunes, cluster, device, limits)
    for line in (device.precision, str(plan.packs)):
        if line:
            console.print(line, style="dim", markup=False, highlight=False)
    return plan


def encode_on_cluster(work: BatchWork, tasks: Sequence[PromptTask], plan: LanePlan) -> None:
    """Encode the texts and exemplars of `tasks` into the cache, on devices as the lanes will have."""
    resources = plan.resources
    most = plan.lanes_on(ray.cluster_resources()) * resources.workers
    device = EncodingDevice(plan.settings.device, 1.0, resources.gpus, resources.threads)
    encode_batch(work.spec, tasks, work.batch.evaluation, work.run.cache, device, most)
