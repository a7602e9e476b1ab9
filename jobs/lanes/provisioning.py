"""The first steps of a job that trains: connect to Ray, plan the lanes, encode texts and exemplars."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import psutil
import ray
from rich.console import Console

from corrector.base import BaseSpec, check_transformer
from corrector.prompts import HyperParameters
from jobs.inputs.batch import BatchWork
from jobs.inputs.encoding import EncodingDevice, start_encoding
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.ray_tasks import bound_threads, get_results
from jobs.lanes.plan import LaneDevice, LaneLimits, LanePlan, inspect_device, plan_lanes
from jobs.lanes.ray_train import TRAIN_ENVIRONMENT
from jobs.log_context import RUN_VARIABLE, bind


def connect(run: str) -> None:
    """Connect to the running Ray cluster, or start Ray on this machine. The driver takes no CPU of Ray, and one thread."""
    bind(run=run)
    if ray.is_initialized():
        return
    bound_threads(1)
    environment, variables = None, TRAIN_ENVIRONMENT | {RUN_VARIABLE: run}
    if os.environ.get("RAY_ADDRESS") == "local":
        os.environ |= variables  # inherited by workers; faster than a runtime environment
    else:
        environment = {"env_vars": variables}
    ray.init(log_to_driver=False, logging_level=logging.WARNING, runtime_env=environment)


def plan_on_cluster(
    work: BatchWork, fine_tunes: Sequence[HyperParameters], limits: LaneLimits, console: Console
) -> LanePlan:
    """Measure a machine of the cluster, plan the lanes for `fine_tunes`, and print the plan."""
    cluster = limits.reachable(ray.cluster_resources())
    kind = "cuda" if cluster.get("GPU", 0) >= 1 else "cpu"
    device: LaneDevice
    if _is_one_machine(cluster):
        device = inspect_device(work.spec, kind)
    else:
        # Before a task asks for a GPU.
        get_results([ray.remote(check_transformer).options(num_cpus=1).remote(work.spec)])
        task = ray.remote(inspect_device).options(num_cpus=1, num_gpus=1 if kind == "cuda" else 0)
        device = get_results([task.remote(work.spec, kind)])[0]
    plan = plan_lanes(work, fine_tunes, cluster, device, limits)
    for line in (device.precision, str(plan.packs)):
        if line:
            console.print(line, style="dim", markup=False, highlight=False)
    return plan


def encode_on_cluster(work: BatchWork, tasks: Sequence[PromptTask], plan: LanePlan) -> list[Any]:
    """Encode texts and exemplars into the cache, on the devices that lanes use later.

    Returns references to the encoding tasks, for which lanes must wait before they train. If lanes and text encoders do not
    fit into memory together, this waits for the tasks and returns an empty list.

    Raises:
        UserError: The base cannot be used; waiting for the references can raise it, too.
    """
    resources, cluster = plan.resources, ray.cluster_resources()
    most = plan.lanes_on(cluster) * resources.workers
    beside = _is_one_machine(cluster) and _is_small(work.spec)
    device = EncodingDevice(plan.settings.device, 0.0 if beside else 1.0, resources.gpus, resources.threads)
    encoded = start_encoding(
        work.spec,
        tasks,
        work.batch.evaluation,
        work.run.cache,
        device,
        most,
        check=_is_one_machine(cluster),
    )
    if beside:
        return encoded
    get_results(encoded)
    return []


def _is_one_machine(cluster: dict[str, float]) -> bool:
    """Whether the cluster is the driver's machine without GPUs, so that the driver can measure it."""
    return cluster.get("GPU", 0) < 1 and sum(node["Alive"] for node in ray.nodes()) == 1


def _is_small(spec: BaseSpec) -> bool:
    """Whether 8 copies of the base fit into this machine's free memory."""
    sizes = [file.stat().st_size for file in spec.folder.rglob("*.safetensors")]
    return spec.single_file is None and 0 < 8 * sum(sizes) < psutil.virtual_memory().available
