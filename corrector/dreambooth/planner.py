"""The planner: how many fine-tunes share a lane, how much memory they need, and how long they take.

Where memory is short, the planner first takes fewer slots, then splits a step's rows into several forwards; neither adds
arithmetic. Only if a single row does not fit beside the base it chooses gradient checkpointing, which adds 40 to 47 %. If
the base's weights are still too large, and it is allowed, they are offloaded to host memory.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from operator import le
from typing import Any

import torch

from corrector.dreambooth.cost import TransformerCost
from corrector.errors import UserError
from corrector.prompts import HyperParameters

_LORA_COPIES = 5
"""float32 copies of an adapter's weights: weights, gradients, the gathered gradients, and AdamW's two moments."""
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class PackPlan:
    """How a batch's fine-tunes are spread over equal lanes; bytes are those of one worker."""

    prompts: int
    lanes: int
    workers: int
    """Data-parallel workers of a lane; each holds the base and all adapters."""
    slots: int
    """Fine-tunes that a lane advances together."""
    rank: int
    """The bank's rank: the highest of the batch."""
    rows: int
    """Rows in a step of a full pack, preservation rows included."""
    tokens_per_forward: int | None
    """Most tokens, image patches and text, in one forward and backward; None: all rows of a resolution."""
    checkpointing: bool
    """Whether blocks are computed again in the backward."""
    offload: bool
    """Whether the base's weights stay in host memory."""
    weights_bytes: int
    """The base's weights on the device; with ``offload`` one block's."""
    adapters_bytes: int
    """Adapters with gradients and optimiser state, all slots."""
    activations_bytes: int
    """The most that a forward and backward hold, see :meth:`TransformerCost.activation_bytes`."""
    images_at_once: int
    """Images that can be sampled together under guidance, which takes two rows each."""
    step_flops: int
    """Of a full pack's step, without what checkpointing computes again."""
    recompute_flops: int
    """What checkpointing adds to that."""
    total_flops: int
    """Of all fine-tunes from beginning to end, checkpointing included."""
    seconds: float | None
    """Training time until the last lane has finished; None where no rate was given."""

    @property
    def memory_bytes(self) -> int:
        """What a worker needs in all."""
        return self.weights_bytes + self.adapters_bytes + self.activations_bytes

    def __str__(self) -> str:
        ways = [f"in turns of {self.tokens_per_forward:,} tokens"] if self.tokens_per_forward else []
        ways += ["blocks recomputed"] if self.checkpointing else []
        ways += ["base in host memory"] if self.offload else []
        shared = f" shared by {self.workers} workers" if self.workers > 1 else ""
        lasting = "" if self.seconds is None else f", about {_duration(self.seconds)}"
        again = f" and {self.recompute_flops / 1e12:.3g} again" if self.recompute_flops else ""
        return (
            f"{self.prompts} fine-tunes in {self.lanes} lane{'s' * (self.lanes > 1)} of {self.slots} "
            f"slot{'s' * (self.slots > 1)} at rank {self.rank}; {', '.join([f'{self.rows} rows a step{shared}', *ways])}\n"
            f"memory a {'lane' if self.workers == 1 else 'worker'}: {self.memory_bytes / _MEBIBYTE:,.0f} MiB "
            f"(base {self.weights_bytes / _MEBIBYTE:,.0f}, adapters {self.adapters_bytes / _MEBIBYTE:,.0f}, "
            f"activations {self.activations_bytes / _MEBIBYTE:,.0f})\n"
            f"arithmetic: {self.step_flops / 1e12:.3g} TFLOP a step{again}, {self.total_flops / 1e12:,.3g} in all{lasting}"
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
    weights_bytes: int | None = None,
    workers: int = 1,
    allow_offload: bool = False,
    host_memory_bytes: int | None = None,
) -> PackPlan:
    """Plans ``hyperparameters``, one per prompt, on at most ``lanes`` lanes of ``workers`` workers.

    ``config`` is the transformer's, ``resolution`` the base's (for prompts that name none), ``tokens`` the length of its
    text embeddings, ``dtype`` the one in which it computes, and ``weights_bytes`` its weights as they lie in memory (None:
    all in ``dtype``). ``memory_bytes`` is what a worker may use of its device, ``host_memory_bytes`` of its host if that is
    known, and ``rate`` a worker's training speed in FLOP/s, see :func:`measure_rate`. Raises :class:`UserError` if a
    resolution does not fit the base, or not even one row fits a worker.
    """
    if not hyperparameters:
        raise ValueError("nothing to plan: no hyper-parameters")
    cost = TransformerCost.of(config)
    rank = max(settings.rank for settings in hyperparameters)
    loads = [
        _load(cost, settings, settings.resolution or resolution, vae_scale_factor, tokens, dtype, rank)
        for settings in hyperparameters
    ]
    lanes = min(lanes, len(loads))
    wanted = min(max_slots, ceil(len(loads) / lanes))
    weights = cost.parameters * dtype.itemsize if weights_bytes is None else weights_bytes
    adapter = 4 * _LORA_COPIES * cost.adapter_parameters(rank)
    streamed = ceil(weights * cost.block_parameters / cost.parameters)
    needs = _Needs(loads, weights, streamed, adapter)
    fit = _fit(needs, _Room(memory_bytes, workers, allow_offload, host_memory_bytes), wanted)
    adapters = (fit.slots + 1) * adapter
    sampled = 2 * max(load.sampled_row_bytes for load in loads)
    recompute = [load.recompute_flops if fit.checkpointing else 0 for load in loads]
    totals = [(load.step_flops + again) * load.steps for load, again in zip(loads, recompute, strict=True)]
    return PackPlan(
        prompts=len(loads),
        lanes=lanes,
        workers=workers,
        slots=fit.slots,
        rank=rank,
        rows=fit.slots * max(load.rows for load in loads),
        tokens_per_forward=fit.tokens_per_forward,
        checkpointing=fit.checkpointing,
        offload=fit.offload,
        weights_bytes=fit.weights,
        adapters_bytes=adapters,
        activations_bytes=fit.activations,
        images_at_once=max(1, (memory_bytes - fit.weights - adapters) // sampled),
        step_flops=fit.slots * max(load.step_flops for load in loads),
        recompute_flops=fit.slots * max(recompute),
        total_flops=sum(totals),
        seconds=None if rate is None else _longest_lane(totals, lanes) / (rate * workers),
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
    """What one fine-tune needs."""

    rows: int
    row_tokens: int
    row_bytes: int
    recomputed_row_bytes: int
    """The same with checkpointing."""
    sampled_row_bytes: int
    """The same without a backward."""
    step_flops: int
    recompute_flops: int
    """What checkpointing adds to a step."""
    steps: int

    def token_bytes(self, checkpointing: bool) -> float:
        """Activations a token."""
        return (self.recomputed_row_bytes if checkpointing else self.row_bytes) / self.row_tokens


def _load(
    cost: TransformerCost,
    settings: HyperParameters,
    resolution: int,
    factor: int,
    tokens: int,
    dtype: torch.dtype,
    rank: int,
) -> _Load:
    multiple = factor * cost.patch
    if resolution % multiple:
        raise UserError(
            f"resolution {resolution} is not a multiple of {multiple}, the pixels that one patch of this base covers; "
            f"use {max(multiple, resolution // multiple * multiple)}"
        )
    patches = (resolution // multiple) ** 2
    preserved = (
        0 if settings.preservation == "none" else settings.preservation_batch_size or settings.batch_size
    )
    rows = settings.batch_size + preserved
    flops = rows * cost.training_flops(patches, tokens, settings.rank)
    if settings.preservation == "guard":
        flops += preserved * cost.forward_flops(patches, tokens)
    held, recomputed = (
        cost.activation_bytes(patches, tokens, dtype.itemsize, rank=rank, checkpointing=checkpointing)
        for checkpointing in (False, True)
    )
    return _Load(
        rows=rows,
        row_tokens=patches + tokens,
        row_bytes=held,
        recomputed_row_bytes=recomputed,
        sampled_row_bytes=cost.sampling_bytes(patches, tokens, dtype.itemsize),
        step_flops=flops,
        recompute_flops=rows * cost.recompute_flops(patches, tokens, settings.rank),
        steps=settings.steps,
    )


@dataclass(frozen=True)
class _Needs:
    """Bytes that must fit: the fine-tunes' rows, the base's weights whole or streamed, and one adapter."""

    loads: Sequence[_Load]
    weights: int
    streamed: int
    adapter: int


@dataclass(frozen=True)
class _Room:
    """Memory of a worker, and the number of workers."""

    memory_bytes: int
    workers: int
    allow_offload: bool
    host_memory_bytes: int | None

    def on_host(self, weights: int) -> bool:
        """Whether every worker's weights fit the host."""
        return self.host_memory_bytes is None or weights * self.workers <= self.host_memory_bytes


@dataclass(frozen=True)
class _Fit:
    """Settings that stay within the memory."""

    slots: int
    tokens_per_forward: int | None
    checkpointing: bool
    offload: bool
    weights: int
    activations: int


def _fit(needs: _Needs, room: _Room, wanted: int) -> _Fit:
    """The cheapest settings for at most ``wanted`` slots, see the module; raises :class:`UserError` if there are none."""
    ways = [(False, False, needs.weights), (True, False, needs.weights)]
    if room.allow_offload and room.on_host(needs.weights):
        ways.append((True, True, needs.streamed))
    highest = max(load.row_tokens for load in needs.loads)
    for checkpointing, offload, resident in ways:
        token = max(load.token_bytes(checkpointing) for load in needs.loads)

        def held(slots: int, resident: int = resident, token: float = token) -> tuple[int, int]:
            """Tokens of a full pack, and tokens that fit."""
            free = room.memory_bytes - resident - (slots + 1) * needs.adapter
            return max(_tokens_at_once(needs.loads, slots, room.workers)), int(free / token)

        slots = max((count for count in range(1, wanted + 1) if le(*held(count))), default=1)
        asked, free = held(slots)
        if free >= highest:
            limit = free if asked > free else None
            return _Fit(slots, limit, checkpointing, offload, resident, ceil(min(asked, free) * token))
    raise UserError(_too_small(needs, room))


def _tokens_at_once(loads: Sequence[_Load], slots: int, workers: int) -> Iterator[int]:
    """Tokens of a worker's forward, for each resolution, when the ``slots`` largest fine-tunes share a pack."""
    buckets: defaultdict[int, list[int]] = defaultdict(list)
    for load in loads:
        buckets[load.row_tokens].append(load.rows)
    for row_tokens, rows in buckets.items():
        yield row_tokens * ceil(sum(sorted(rows)[-slots:]) / workers)


def _too_small(needs: _Needs, room: _Room) -> str:
    """The message: what one row needs at least, and the remedies."""
    row = max(load.recomputed_row_bytes for load in needs.loads)
    rest = row + 2 * needs.adapter
    remedies = ["lower resolution or rank", "use a larger device"]
    if needs.weights + rest > room.memory_bytes >= needs.weights // 4 + rest:
        remedies.insert(0, "load the base with precision nf4")
    if not room.allow_offload and needs.streamed + rest <= room.memory_bytes:
        remedies.insert(0, "allow the base to be offloaded to host memory")
    if room.allow_offload and not room.on_host(needs.weights):
        remedies.insert(0, f"give the host {_mebibytes(needs.weights)} a worker for the offloaded base")
    return (
        f"one training row needs {_mebibytes(needs.weights + rest)} even with its blocks recomputed (base "
        f"{_mebibytes(needs.weights)}, adapter {_mebibytes(2 * needs.adapter)}, activations {_mebibytes(row)}), and a "
        f"lane's device has {_mebibytes(room.memory_bytes)}; {', '.join(remedies[:-1])}, or {remedies[-1]}"
    )


def _mebibytes(size: int) -> str:
    return f"{size / _MEBIBYTE:,.0f} MiB"


def _longest_lane(loads: Sequence[int], lanes: int) -> int:
    """The largest share when every fine-tune, the longest first, goes to the lane with the least work."""
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
