"""What a job would run: packs, lanes, estimated time and memory."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corrector.base import BaseSpec
from corrector.dreambooth.planner import PackPlan, measure_rate, plan_packs
from jobs.batch import BatchWork, PromptWork
from jobs.lane import LaneSettings
from jobs.trainer import LaneResources

MAX_SLOTS = 16
_MEMORY_SHARE = {"cuda": 0.9, "cpu": 0.5}
"""What of a device's memory lanes may plan with; on a CPU the node itself, the store and the scoring need the rest."""


@dataclass(frozen=True)
class LaneDevice:
    """One machine's part for lanes: its kind, memory in bytes, training speed in FLOP/s, and cores."""

    kind: str
    memory_bytes: int
    rate: float
    cores: int


@dataclass(frozen=True)
class LanePlan:
    """How the lanes of a job are made."""

    packs: PackPlan
    settings: LaneSettings
    resources: LaneResources
    max_lanes: int | None

    def lanes_on(self, cluster: Mapping[str, float]) -> int:
        """How many lanes fit on the cluster as it is now; at least one, which then waits for the cluster to grow."""
        return _room(cluster, self.resources, self.max_lanes)


def inspect_device(config: Mapping[str, object], kind: str) -> LaneDevice:
    """Measure the machine that this runs on; takes about a second."""
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    total = torch.cuda.mem_get_info()[1] if kind == "cuda" else psutil.virtual_memory().available
    rate = measure_rate(config, device=kind, dtype=dtype)
    return LaneDevice(kind, int(total * _MEMORY_SHARE[kind]), rate, os.cpu_count() or 1)


def plan_lanes(
    work: BatchWork,
    prompts: Sequence[PromptWork],
    cluster: Mapping[str, float],
    device: LaneDevice,
    *,
    lanes: int | None,
    slots: int | None,
) -> LanePlan:
    """Plan the lanes for `prompts` on a cluster with these resources, made of machines like `device`.

    On GPUs a lane is one GPU. On CPUs a lane is one machine with all its cores, so that the base lies in memory once.
    """
    gpu = device.kind == "cuda"
    if gpu:
        resources = LaneResources(cpus=1.0, gpus=1.0, threads=1)
    else:
        cpus = min(cluster.get("CPU", 1.0), float(device.cores))
        resources = LaneResources(cpus=cpus, gpus=0.0, threads=device.cores)
    dtype = torch.bfloat16 if gpu else torch.float32
    hyper = [each.entry.hyperparameters for each in prompts]
    packs = plan_packs(
        transformer_config(work.spec),
        hyper,
        resolution=work.spec.resolution,
        vae_scale_factor=work.spec.vae_scale_factor,
        tokens=_tokens(work.spec),
        memory_bytes=device.memory_bytes,
        lanes=_room(cluster, resources, lanes),
        rate=device.rate,
        dtype=dtype,
        max_slots=slots or MAX_SLOTS,
    )
    settings = LaneSettings(
        slots=packs.slots,
        rank=packs.rank,
        rows_per_forward=packs.rows_per_forward,
        cache=work.run.cache,
        evaluation=work.batch.evaluation,
        device=device.kind,
        dtype=dtype,
    )
    return LanePlan(packs, settings, resources, lanes)


def print_plan(work: BatchWork, console: Console, *, lanes: int | None, slots: int | None) -> None:
    """Print what a submission on this machine would run; starts nothing."""
    table = Table(header_style="bold", title=f"{work.batch.path.name} on {escape(work.spec.name)}")
    for column in ("prompt", "exemplars", "guards", "rank", "steps", "lr", "priority", "state"):
        table.add_column(column, overflow="fold")
    for each in work.prompts:
        hyper, exemplars = each.entry.hyperparameters, each.exemplars
        table.add_row(
            escape(each.entry.prompt),
            f"{len(exemplars.training)} + {len(exemplars.held_out)} held out",
            str(len(each.entry.guard_prompts)),
            str(hyper.rank),
            str(hyper.steps),
            f"{hyper.learning_rate:g}",
            str(each.entry.priority),
            "finished" if each.folder.is_finished else "to do",
        )
    console.print(table)
    for note in (*work.batch.notes, *(note for each in work.prompts for note in each.notes)):
        console.print(note, style="yellow", markup=False, highlight=False)
    if not work.missing:
        console.print("nothing is left to do")
        return
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    cluster = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    device = inspect_device(transformer_config(work.spec), kind)
    plan = plan_lanes(work, work.missing, cluster, device, lanes=lanes, slots=slots)
    console.print(str(plan.packs), markup=False, highlight=False)
    console.print("(this machine's figures, training only; sampling and scoring come on top)", style="dim")


def transformer_config(spec: BaseSpec) -> dict[str, object]:
    """The configuration of the base's transformer."""
    config: dict[str, object] = json.loads((spec.folder / "transformer" / "config.json").read_text())
    return config


def _tokens(spec: BaseSpec) -> int:
    """Text tokens that the transformer reads: CLIP's and T5's."""
    tokenizer = json.loads((spec.folder / "tokenizer" / "tokenizer_config.json").read_text())
    return int(tokenizer["model_max_length"]) + spec.max_sequence_length


def _room(cluster: Mapping[str, float], resources: LaneResources, most: int | None) -> int:
    by_cpu = cluster.get("CPU", 0) / resources.cpus
    by_gpu = cluster.get("GPU", 0) / resources.gpus if resources.gpus else math.inf
    room = max(1, int(min(by_cpu, by_gpu)))
    return room if most is None else min(room, most)
