"""The plan of a job's lanes: how many, with how many slots, and their estimated time and memory."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corrector.base import BaseSpec, describe_precision, transformer_bytes
from corrector.base.headers import read_headers, weight_files
from corrector.base.spec import QUANTISED
from corrector.dreambooth.pack_plan import PackPlan, measure_rate, plan_packs
from corrector.errors import UserError
from corrector.prompts import HyperParameters
from corrector.settings import Settings
from jobs.inputs.batch import BatchWork
from jobs.lanes.lane import LaneSettings
from jobs.lanes.plan_cost import print_costs

NodeResources = Mapping[str, float]
"""Ray's resources of one node: "CPU", "GPU", and further ones."""
MAX_SLOTS = 16
MAX_IMAGES = {"cuda": 32, "cpu": 8}
"""Images that are sampled together at most. More do not make a device faster; on a CPU their activations leave the cache."""
_WEIGHTS_SHARE = 0.25
"""Share of a machine's memory that its lanes' copies of the base may take."""
_MEMORY_SHARE = {"cuda": 0.85, "cpu": 0.5}
"""Share of a device's memory that lanes may plan with. The rest of a GPU is for the VAE, the allocator's rounding and CUDA,
of a CPU's memory for the node, the object store and scoring."""


@dataclass(frozen=True)
class LaneDevice:
    """A machine's resources for lanes.

    Attributes:
        kind: "cuda" or "cpu".
        memory_bytes: Device memory that lanes may use.
        host_memory_bytes: Host memory that lanes may use.
        rate: Training speed in FLOP/s.
        cores: CPU cores.
        precision: A text: memory and error of a quantised base; None where it is not quantised.
    """

    kind: str
    memory_bytes: int
    host_memory_bytes: int
    rate: float
    cores: int
    precision: str | None = None


@dataclass(frozen=True)
class LaneLimits:
    """Limits that the user sets; where one is None, the planner chooses.

    Attributes:
        lanes: Maximum of lanes at once.
        slots: Fine-tunes in a lane at once.
        machine_slots: Fine-tunes at once in all lanes of a device together, where `slots` is None.
        gpus: GPUs that the cluster's autoscaler can bring. Lanes are planned for them, and wait until they are there.
        workers: Workers of a lane; each has its own device and takes a part of the lane's rows.
    """

    lanes: int | None = None
    slots: int | None = None
    workers: int = 1
    machine_slots: int | None = None
    gpus: int = 0

    def reachable(self, nodes: Sequence[NodeResources]) -> list[NodeResources]:
        """The nodes that the cluster has or can get: with at least `gpus` GPUs, each missing one on a node with a CPU."""
        missing = self.gpus - int(sum(node.get("GPU", 0.0) for node in nodes))
        return [*nodes, *({"CPU": 1.0, "GPU": 1.0} for _ in range(missing))]


@dataclass(frozen=True)
class LaneResources:
    """Logical CPUs and GPUs of one worker of a lane, its torch threads, and the number of a lane's workers."""

    cpus: float
    gpus: float
    threads: int
    workers: int = 1


@dataclass(frozen=True)
class LanePlan:
    """The lanes of a job."""

    packs: PackPlan
    settings: LaneSettings
    resources: LaneResources
    limits: LaneLimits

    def lanes_on(self, nodes: Sequence[NodeResources]) -> int:
        """How many lanes fit on the nodes, and on those that the limits allow besides; at least 1, since a lane can wait."""
        return max(1, _room(self.limits.reachable(nodes), self.resources, self.limits.lanes))


def inspect_device(spec: BaseSpec, kind: str) -> LaneDevice:
    """Measure this machine; takes about a second.

    Raises:
        UserError: Torch cannot use the GPU that Ray has given to this process.
    """
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"{socket.gethostname()}: Ray has a GPU here that torch {torch.__version__} cannot use; start the node with the "
            "image for GPUs, and with NVIDIA's driver and container toolkit"
        )
    host = psutil.virtual_memory().available
    total = torch.cuda.mem_get_info()[1] if kind == "cuda" else host
    rate = measure_rate(spec.transformer_config, device=kind, dtype=spec.compute_dtype(kind))
    return LaneDevice(
        kind,
        memory_bytes=int(total * _MEMORY_SHARE[kind]),
        host_memory_bytes=int(host * _MEMORY_SHARE["cpu"]),
        rate=rate,
        cores=os.cpu_count() or 1,
        precision=str(describe_precision(spec, kind)) if spec.precision in QUANTISED else None,
    )


def plan_lanes(
    work: BatchWork,
    fine_tunes: Sequence[HyperParameters],
    nodes: Sequence[NodeResources],
    device: LaneDevice,
    limits: LaneLimits,
) -> LanePlan:
    """Plan the lanes for `fine_tunes` on a cluster of these nodes, each a machine like `device`.

    On GPUs a worker has one GPU. On CPUs the lanes of a machine share its cores, and there are as many as memory and prompts
    allow: one lane is slower, since its threads wait for each other at every operation (`tests.benchmarks.lanes`).

    Raises:
        UserError: No lane fits, on the nodes or into the device's memory.
    """
    spec, gpu = work.spec, device.kind == "cuda"
    weights = weights_bytes(spec, device.kind)
    if gpu:
        shared = 1
        resources = LaneResources(cpus=1.0, gpus=1.0, threads=1, workers=limits.workers)
    else:
        cpus = min(max(node.get("CPU", 0.0) for node in nodes), float(device.cores))
        shared = _lanes_of_machine(int(cpus), weights, device.memory_bytes, len(fine_tunes), limits)
        resources = LaneResources(
            cpus=max(1.0, cpus // (shared * limits.workers)),
            gpus=0.0,
            threads=max(1, device.cores // (shared * limits.workers)),
            workers=limits.workers,
        )
    room = _room(limits.reachable(nodes), resources, limits.lanes)
    if room < 1:
        raise UserError(_too_small(nodes, resources))
    packs = plan_packs(
        spec.transformer_config,
        fine_tunes,
        resolution=spec.resolution,
        vae_scale_factor=spec.vae_scale_factor,
        tokens=spec.text_tokens,
        memory_bytes=device.memory_bytes // shared,
        lanes=room,
        rate=device.rate / shared,
        dtype=spec.compute_dtype(device.kind),
        max_slots=limits.slots or max(1, (limits.machine_slots or MAX_SLOTS) // shared),
        weights_bytes=weights,
        workers=limits.workers,
        allow_offload=gpu,
        host_memory_bytes=device.host_memory_bytes // shared,
    )
    settings = LaneSettings(
        slots=packs.slots,
        rank=packs.rank,
        tokens_per_forward=packs.tokens_per_forward,
        checkpointing=packs.checkpointing,
        offload=packs.offload,
        compile=gpu,
        images_at_once=min(MAX_IMAGES[device.kind], packs.images_at_once),
        cache=work.run.cache,
        evaluation=work.batch.evaluation,
        gate=work.batch.gate,
        device=device.kind,
        dtype=spec.compute_dtype(device.kind),
    )
    return LanePlan(packs, settings, resources, limits)


def print_plan(work: BatchWork, console: Console, limits: LaneLimits) -> None:
    """Print the plan of a submission on this machine; starts nothing."""
    table = Table(header_style="bold", title=f"{work.batch.path.name} on {escape(work.spec.name)}")
    for column in ("prompt", "exemplars", "guards", "rank", "steps", "lr", "priority", "state"):
        table.add_column(column, overflow="fold")
    missing = work.missing
    for each in work.tasks:
        hyper, exemplars = each.entry.hyperparameters, work.exemplars[each.entry.name]
        table.add_row(
            escape(each.entry.prompt),
            f"{len(exemplars.training)} + {len(exemplars.held_out)} held out",
            str(len(each.entry.guard_prompts)),
            str(hyper.rank),
            str(hyper.steps),
            f"{hyper.learning_rate:g}",
            str(each.entry.priority),
            "to do" if each in missing else "finished",
        )
    console.print(table)
    for note in (*work.batch.notes, *(note for each in work.exemplars.values() for note in each.notes)):
        console.print(note, style="yellow", markup=False, highlight=False)
    if not missing:
        console.print("nothing is left to do")
        return
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    node = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    device = inspect_device(work.spec, kind)
    plan = plan_lanes(work, [each.entry.hyperparameters for each in missing], [node], device, limits)
    if device.precision:
        console.print(device.precision, markup=False, highlight=False)
    console.print(str(plan.packs), markup=False, highlight=False)
    console.print("(this machine's figures, training only; sampling and scoring come on top)", style="dim")
    gpu = torch.cuda.get_device_name() if kind == "cuda" else None
    print_costs(work, console, gpu=gpu, price=Settings.from_environment().device_hour_dollars)


def weights_bytes(spec: BaseSpec, kind: str) -> int:
    """Bytes of the transformer's weights in memory: `transformer_bytes`, computed without diffusers where the files are here.

    Importing diffusers takes seconds, which would delay the job's driver.
    """
    folder = spec.folder / "transformer"
    if spec.single_file is not None or spec.precision in QUANTISED or not any(folder.glob("*.safetensors")):
        return transformer_bytes(spec, kind)
    headers = read_headers(weight_files(folder)).values()
    return sum(math.prod(header.shape) for header in headers) * spec.compute_dtype(kind).itemsize


def _lanes_of_machine(cores: int, weights: int, memory: int, prompts: int, limits: LaneLimits) -> int:
    """How many lanes share a machine's cores: one per two prompts, as long as the bases take a small part of its memory."""
    most = min(
        cores // limits.workers,
        -(-prompts // 2),
        int(memory * _WEIGHTS_SHARE / weights),
        limits.lanes or cores,
    )
    return max(1, most)


def _room(nodes: Sequence[NodeResources], resources: LaneResources, most: int | None) -> int:
    """How many lanes fit on the nodes at once: a worker is on one node, and the workers of a lane may be on several."""
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
    workers = sum(
        int(min(node.get(name, 0.0) / amount for name, amount in wanted.items() if amount)) for node in nodes
    )
    room = workers // resources.workers
    return room if most is None else min(room, most)


def _too_small(nodes: Sequence[NodeResources], resources: LaneResources) -> str:
    parts = [f"{resources.cpus:g} CPU"] + ([f"{resources.gpus:g} GPU"] if resources.gpus else [])
    there = ", ".join(
        f"{node.get('CPU', 0.0):g} CPU" + (f" and {node['GPU']:g} GPU" if node.get("GPU") else "")
        for node in nodes
    )
    workers = f"{resources.workers} workers, each with " if resources.workers > 1 else ""
    remedy = "lower --workers, or add nodes" if resources.workers > 1 else "add a node with that"
    return f"the cluster is too small for a lane, which needs {workers}{' and '.join(parts)}; its nodes have {there}; {remedy}"
