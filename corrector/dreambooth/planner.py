"""The planner: how many fine-tunes share a lane, what that takes in memory, and how long it will last."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch

from corrector.dreambooth.cost import TransformerCost
from corrector.errors import UserError
from corrector.prompts import HyperParameters

_LORA_COPIES = 5
"""float32 copies of an adapter's weights: weights, gradients, the gathered gradients, and AdamW's two moments."""
_SLACK = 1.25
"""Allocator's rounding, the forward's own temporaries and everything that is not counted."""
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class PackPlan:
    """How a batch's fine-tunes are spread over lanes. All lanes are alike; bytes are one lane's, seconds the whole."""

    prompts: int
    lanes: int
    slots: int
    """Fine-tunes that a lane advances together."""
    rank: int
    """The bank's rank: the highest of the batch."""
    rows: int
    """Rows that go forward and backward in a step of a full pack, preservation rows included."""
    rows_per_forward: int | None
    """None: all at once; else the engine takes the rows in turns of this many, to stay within the memory."""
    weights_bytes: int
    adapters_bytes: int
    """Adapters with gradients and optimiser state, all slots."""
    activations_bytes: int
    step_flops: int
    """Of a full pack's step."""
    total_flops: int
    """Of all fine-tunes from beginning to end."""
    seconds: float | None
    """Until the last lane is through, training only; None where no rate was given."""

    @property
    def memory_bytes(self) -> int:
        """What a lane needs in all."""
        return self.weights_bytes + self.adapters_bytes + self.activations_bytes

    def __str__(self) -> str:
        turns = "" if self.rows_per_forward is None else f", {self.rows_per_forward} at a time"
        lasting = "" if self.seconds is None else f", about {_duration(self.seconds)}"
        return (
            f"{self.prompts} fine-tunes in {self.lanes} lane{'s' * (self.lanes > 1)} of {self.slots} "
            f"slot{'s' * (self.slots > 1)} at rank {self.rank}; {self.rows} rows a step{turns}\n"
            f"memory a lane: {self.memory_bytes / _MEBIBYTE:,.0f} MiB (base {self.weights_bytes / _MEBIBYTE:,.0f}, "
            f"adapters {self.adapters_bytes / _MEBIBYTE:,.0f}, activations {self.activations_bytes / _MEBIBYTE:,.0f})\n"
            f"arithmetic: {self.step_flops / 1e12:.3g} TFLOP a step, {self.total_flops / 1e12:,.3g} in all{lasting}"
        )


def plan_packs(
    config: Mapping[str, Any],
    hyperparameters: Sequence[HyperParameters],
    *,
    resolution: int,
    vae_scale_factor: int,
    tokens: int,
    memory_bytes: int,
    lanes: int,
    rate: float | None = None,
    dtype: torch.dtype = torch.float32,
    max_slots: int = 16,
) -> PackPlan:
    """Plans ``hyperparameters``, one per prompt, on at most ``lanes`` lanes of ``memory_bytes`` each.

    ``config`` is the transformer's, ``resolution`` the base's (for prompts that name none), ``tokens`` the length of its
    text embeddings, ``dtype`` the base's on the lane, and ``rate`` a lane's training speed in FLOP/s, see
    :func:`measure_rate`. Slots are filled up before rows are taken in turns: a step's rows go through in one forward
    where they fit. Raises :class:`UserError` if not even one row fits beside the base.
    """
    if not hyperparameters:
        raise ValueError("nothing to plan: no hyper-parameters")
    cost = TransformerCost.of(config)
    loads = [
        _load(cost, settings, resolution // vae_scale_factor, vae_scale_factor, tokens, dtype)
        for settings in hyperparameters
    ]
    rank = max(settings.rank for settings in hyperparameters)
    weights = cost.parameters * dtype.itemsize
    adapter = 4 * _LORA_COPIES * cost.adapter_parameters(rank)
    row = int(_SLACK * max(load.row_bytes for load in loads))
    rows = max(load.rows for load in loads)

    def needed(slots: int, at_once: int) -> int:
        return weights + (slots + 1) * adapter + at_once * row

    lanes = min(lanes, len(loads))
    wanted = min(max_slots, ceil(len(loads) / lanes))
    slots = max(
        (count for count in range(1, wanted + 1) if needed(count, count * rows) <= memory_bytes), default=1
    )
    at_once = min(slots * rows, (memory_bytes - needed(slots, 0)) // row)
    if at_once < 1:
        raise UserError(
            f"one training row needs {needed(1, 1) / _MEBIBYTE:,.0f} MiB beside the base's weights, and a lane has "
            f"{memory_bytes / _MEBIBYTE:,.0f} MiB; lower resolution or rank, load the base in bfloat16, or use a larger device"
        )
    return PackPlan(
        prompts=len(loads),
        lanes=lanes,
        slots=slots,
        rank=rank,
        rows=slots * rows,
        rows_per_forward=None if at_once == slots * rows else at_once,
        weights_bytes=weights,
        adapters_bytes=(slots + 1) * adapter,
        activations_bytes=at_once * row,
        step_flops=slots * max(load.step_flops for load in loads),
        total_flops=sum(load.total_flops for load in loads),
        seconds=None if rate is None else _longest_lane([load.total_flops for load in loads], lanes) / rate,
    )


def measure_rate(config: Mapping[str, Any], *, rows: int = 32, patches: int = 64, device: str = "cpu",
                 dtype: torch.dtype = torch.float32, seconds: float = 0.3) -> float:  # fmt: skip
    """A lane's training speed in FLOP/s, estimated in ``seconds`` from the transformer's most frequent product.

    Times ``[rows * patches, width] @ [width, 4 width]``, and takes the share of it that training reaches: the rest goes
    to normalisation, activation functions and the optimiser.
    """
    width = TransformerCost.of(config).width
    left = torch.randn(rows * patches, width, device=device, dtype=dtype)
    right = torch.randn(width, 4 * width, device=device, dtype=dtype)
    left @ right
    _wait(device)
    products, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or products == 0:
        left @ right
        _wait(device)
        products += 1
    return _TRAINING_SHARE * products * 2 * left.shape[0] * right.numel() / elapsed


_TRAINING_SHARE = 0.5
"""Training's FLOP/s over the product's, on the embedded base: 0.61 with one CPU thread, 0.40 to 0.45 with two."""


@dataclass(frozen=True)
class _Load:
    """One fine-tune's demands."""

    rows: int
    row_bytes: int
    step_flops: int
    total_flops: int


def _load(
    cost: TransformerCost,
    settings: HyperParameters,
    base_side: int,
    factor: int,
    tokens: int,
    dtype: torch.dtype,
) -> _Load:
    side = base_side if settings.resolution is None else settings.resolution // factor
    patches = (side // cost.patch) ** 2
    kept = 0 if settings.preservation == "none" else settings.preservation_batch_size or settings.batch_size
    rows = settings.batch_size + kept
    flops = rows * cost.training_flops(patches, tokens, settings.rank)
    if settings.preservation == "guard":
        flops += kept * cost.forward_flops(patches, tokens)
    return _Load(rows, cost.activation_bytes(patches, tokens, dtype.itemsize), flops, flops * settings.steps)


def _longest_lane(loads: Sequence[int], lanes: int) -> int:
    """The fullest lane's share when every fine-tune, the longest first, goes to the emptiest lane."""
    filled = [0] * lanes
    for load in sorted(loads, reverse=True):
        filled[filled.index(min(filled))] += load
    return max(filled)


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
