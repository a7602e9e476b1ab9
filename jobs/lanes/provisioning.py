"""The first steps of a job that trains: connect to Ray, plan the lanes, encode texts and exemplars."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import ray
from rich.console import Console

from corrector.base import BaseSpec, check_transformer
from corrector.errors import UserError
from corrector.prompts import HyperParameters
from jobs.inputs.batch import BatchWork
from jobs.inputs.encoding import EncodingDevice, start_encoding
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.ray_tasks import bound_threads, get_results
from jobs.lanes.node_check import alive_nodes, check_nodes
from jobs.lanes.plan import LaneDevice, LaneLimits, LanePlan, NodeResources, inspect_device, plan_lanes
from jobs.lanes.ray_train import TRAIN_ENVIRONMENT
from jobs.log_context import RUN_VARIABLE, bind

ACCELERATOR = "accelerator_type:"
"""The beginning of the resource by which Ray names a node's type of GPU."""
NO_GPU_YET = (
    "no node has a GPU yet: the job waits until the autoscaler brings one of up to {} (`ray status` says what it does); "
    "without an autoscaler, add a node, or leave out --gpus"
)
GPU_SECONDS = 1800.0
"""How long a job waits for its first GPU. A cloud may take a quarter of an hour to find that it has no spot machine."""


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
    """Check the nodes of the cluster, measure its machines, plan the lanes for `fine_tunes`, and print the plan.

    Raises:
        UserError: A node cannot work for this job, the base cannot be used, or no lane fits.
    """
    nodes = alive_nodes()
    if not any(node.get("CPU", 0) >= 1 for node in nodes):
        raise UserError("no node of the cluster offers a CPU; add a node with --num-cpus of at least 1")
    is_gpu = any(node.get("GPU", 0) >= 1 for node in limits.reachable(nodes))
    if _is_one_machine(nodes) and not is_gpu:
        devices = {"": inspect_device(work.spec, "cpu")}
    else:
        check_nodes()
        # Before a task asks for a GPU.
        get_results([ray.remote(check_transformer).options(num_cpus=1).remote(work.spec)])
        if is_gpu and not any(node.get("GPU", 0) >= 1 for node in nodes):
            console.print(NO_GPU_YET.format(limits.gpus), style="yellow", highlight=False)
        devices = _inspect_nodes(work.spec, nodes, "cuda" if is_gpu else "cpu")
    device, note = smallest(devices)
    if note is not None:
        console.print(note, style="yellow", highlight=False)
    plan = plan_lanes(work, fine_tunes, nodes, device, limits)
    for line in (device.precision, str(plan.packs)):
        if line:
            console.print(line, style="dim", markup=False, highlight=False)
    return plan


def smallest(devices: Mapping[str, LaneDevice]) -> tuple[LaneDevice, str | None]:
    """The device with the least memory, for which lanes are planned, and a note where there are several."""
    name, device = min(devices.items(), key=lambda each: each[1].memory_bytes)
    if len(devices) == 1:
        return device, None
    sizes = ", ".join(
        f"{kind} ({each.memory_bytes / 2**30:.0f} GiB for lanes)" for kind, each in devices.items()
    )
    return device, (
        f"the cluster has GPUs of several types, {sizes}: lanes are planned for {name}, so that they fit on all; "
        "a cluster for each type uses the others better"
    )


def _inspect_nodes(spec: BaseSpec, nodes: Sequence[NodeResources], kind: str) -> dict[str, LaneDevice]:
    """A machine of every type of GPU in the cluster by the type's name; where there is none, one machine, named ""."""
    types = {name for node in nodes if node.get("GPU") for name in node if name.startswith(ACCELERATOR)}
    names = sorted(types) if kind == "cuda" and types else [""]
    inspect = ray.remote(inspect_device)
    tasks = [
        inspect.options(
            num_cpus=1, num_gpus=1 if kind == "cuda" else 0, resources={name: 0.001} if name else None
        ).remote(spec, kind)
        for name in names
    ]
    # Tasks that wait are what the autoscaler acts on.
    _, late = ray.wait(tasks, num_returns=len(tasks), timeout=GPU_SECONDS)
    if late:
        raise UserError(
            f"no GPU joined the cluster within {GPU_SECONDS:g} s, or all are taken; look at `ray status` and at the pending "
            "machines or pods of its worker groups (quota, spot capacity, node labels)"
        )
    return dict(zip((name.removeprefix(ACCELERATOR) for name in names), get_results(tasks), strict=True))


def encode_on_cluster(work: BatchWork, tasks: Sequence[PromptTask], plan: LanePlan) -> list[Any]:
    """Encode texts and exemplars into the cache, on the devices that lanes use later.

    Returns references to the encoding tasks, for which lanes must wait before they train. If lanes and text encoders do not
    fit into memory together, this waits for the tasks and returns an empty list.

    Raises:
        UserError: The base cannot be used; waiting for the references can raise it, too.
    """
    resources, nodes = plan.resources, alive_nodes()
    most = plan.lanes_on(nodes) * resources.workers
    beside = _is_one_machine(nodes) and _is_small(work.spec)
    device = EncodingDevice(plan.settings.device, 0.0 if beside else 1.0, resources.gpus, resources.threads)
    encoded = start_encoding(
        work.spec,
        tasks,
        work.batch.evaluation,
        work.run.cache,
        device,
        most,
        check=_is_one_machine(nodes),
        decisions=work.decisions if work.check_exemplars else None,
    )
    if beside:
        return encoded
    get_results(encoded)
    return []


def _is_one_machine(nodes: Sequence[NodeResources]) -> bool:
    """Whether the cluster is the driver's machine without GPUs, so that the driver can measure it."""
    return len(nodes) == 1 and nodes[0].get("GPU", 0) < 1


def _is_small(spec: BaseSpec) -> bool:
    """Whether 8 copies of the base fit into this machine's free memory."""
    sizes = [file.stat().st_size for file in spec.folder.rglob("*.safetensors")]
    return spec.single_file is None and 0 < 8 * sum(sizes) < psutil.virtual_memory().available
