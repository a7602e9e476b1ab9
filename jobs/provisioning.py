"""What every job that trains does before its first step: connect to Ray, plan the lanes, encode what they share."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import psutil
import ray
from rich.console import Console

from corrector.base import BaseSpec, ContentCache, check_transformer
from jobs.batch import BatchWork, PromptWork
from jobs.encoding import EncodingDevice, start_encoding
from jobs.plan import LaneDevice, LanePlan, LaneWishes, inspect_device, plan_lanes
from jobs.preparation import bound_threads, store_exemplars
from jobs.queue import WorkItem
from jobs.tasks import answers
from jobs.trainer import TRAIN_ENVIRONMENT


def connect() -> None:
    """Join the Ray that is there, or start one of this machine. The driver holds no CPU of it and takes one thread."""
    if ray.is_initialized():
        return
    bound_threads(1)
    environment = None
    if os.environ.get("RAY_ADDRESS") == "local":
        os.environ |= TRAIN_ENVIRONMENT  # which workers inherit: a runtime environment takes longer
    else:
        environment = {"env_vars": TRAIN_ENVIRONMENT}
    ray.init(log_to_driver=False, logging_level=logging.WARNING, runtime_env=environment)


def plan_on_cluster(
    work: BatchWork, fine_tunes: Sequence[PromptWork], wishes: LaneWishes, console: Console
) -> LanePlan:
    """Plan the lanes for `fine_tunes` on the strength of what a machine of the cluster measures of itself; print the plan."""
    cluster: dict[str, float] = ray.cluster_resources()
    kind = "cuda" if cluster.get("GPU", 0) >= 1 else "cpu"
    device: LaneDevice
    if _is_one_machine(cluster):
        device = inspect_device(work.spec, kind)
    else:
        # Before any device is asked for.
        answers([ray.remote(check_transformer).options(num_cpus=1).remote(work.spec)])
        task = ray.remote(inspect_device).options(num_cpus=1, num_gpus=1 if kind == "cuda" else 0)
        device = answers([task.remote(work.spec, kind)])[0]
    plan = plan_lanes(work, fine_tunes, cluster, device, wishes)
    for line in (device.precision, str(plan.packs)):
        if line:
            console.print(line, style="dim", markup=False, highlight=False)
    return plan


def work_items(work: BatchWork, prompts: Sequence[PromptWork]) -> list[WorkItem]:
    """The prompts as lanes receive them, their decoded exemplars in the cache."""
    cache = ContentCache(work.run.cache)
    return [
        WorkItem(each.work_id, each.entry, store_exemplars(each.exemplars, cache), str(each.folder.path))
        for each in prompts
    ]


def encode_on_cluster(work: BatchWork, items: Sequence[WorkItem], plan: LanePlan) -> list[Any]:
    """Fill the cache, on the devices on which the lanes will be.

    Returns references that lanes have to wait for before they train. There are some only where lanes and text encoders
    have room beside each other; otherwise this waits itself.

    Raises:
        UserError: The base cannot be used; what waits for the references has to raise it, too.
    """
    resources, cluster = plan.resources, ray.cluster_resources()
    most = plan.lanes_on(cluster) * resources.workers
    beside = _is_one_machine(cluster) and _is_small(work.spec)
    device = EncodingDevice(plan.settings.device, 0.0 if beside else 1.0, resources.gpus, resources.threads)
    encoded = start_encoding(
        work.spec,
        items,
        work.batch.evaluation,
        work.run.cache,
        device,
        most,
        check=_is_one_machine(cluster),
    )
    if beside:
        return encoded
    answers(encoded)
    return []


def _is_one_machine(cluster: dict[str, float]) -> bool:
    """Whether the cluster is the driver's own machine, without GPUs: then nothing has to be asked of a worker."""
    return cluster.get("GPU", 0) < 1 and sum(node["Alive"] for node in ray.nodes()) == 1


def _is_small(spec: BaseSpec) -> bool:
    """Whether the base's parts, several times over, take a small share of this machine's free memory."""
    sizes = [file.stat().st_size for file in spec.folder.rglob("*.safetensors")]
    return spec.single_file is None and 0 < 8 * sum(sizes) < psutil.virtual_memory().available
