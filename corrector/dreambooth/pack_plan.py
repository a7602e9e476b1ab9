"""The planner: how many fine-tunes share a lane, how much memory they need, and how long they take.

Where memory is short, the planner first takes fewer slots, then splits a step's rows into several forwards; neither adds
arithmetic. If a single row still does not fit beside the base, it chooses gradient checkpointing, which adds 40 to 47 %. If
the base's weights are still too large, and it is allowed, they are offloaded to host memory.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch

from corrector.dreambooth.transformer_cost import TransformerCost
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
        """Bytes that a worker needs in total."""
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
    text embeddings, ``dtype`` the one in which it computes, and ``weights_bytes`` the memory of its weights (None: all
    are in ``dtype``). ``memory_bytes`` is what a worker may use of its device, ``host_memory_bytes`` of its host if that is
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
    fit = _Worker(
        loads=loads,
        weights=weights,
        streamed=ceil(weights * cost.block_parameters / cost.parameters),
        adapter=adapter,
        memory=memory_bytes,
        host_memory=host_memory_bytes,
        workers=workers,
        allow_offload=allow_offload,
    ).fit(wanted)
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
    preserved = settings.mean_preservation_rows
    rows = settings.batch_size + preserved
    flops = rows * cost.training_flops(patches, tokens, settings.rank)
    if settings.preservation == "guard":
        flops += preserved * cost.forward_flops(patches, tokens)
    held, recomputed = (
        cost.activation_bytes(patches, tokens, dtype.itemsize, rank=rank, checkpointing=checkpointing)
        for checkpointing in (False, True)
    )
    return _Load(
        rows=ceil(rows),
        row_tokens=patches + tokens,
        row_bytes=held,
        recomputed_row_bytes=recomputed,
        sampled_row_bytes=cost.sampling_bytes(patches, tokens, dtype.itemsize),
        step_flops=round(flops),
        recompute_flops=round(rows * cost.recompute_flops(patches, tokens, settings.rank)),
        steps=settings.steps,
    )


@dataclass(frozen=True)
class _Fit:
    """Settings that stay within the memory."""

    slots: int
    tokens_per_forward: int | None
    checkpointing: bool
    offload: bool
    weights: int
    activations: int


@dataclass(frozen=True)
class _Worker:
    """What a worker must hold and the memory that it has, in bytes."""

    loads: Sequence[_Load]
    weights: int
    streamed: int
    """The largest block, which is all that an offloaded base keeps on the device."""
    adapter: int
    memory: int
    host_memory: int | None
    workers: int
    allow_offload: bool

    def fit(self, wanted: int) -> _Fit:
        """The cheapest settings for at most ``wanted`` slots, see the module; raises :class:`UserError` if there are none."""
        ways = [(False, False, self.weights), (True, False, self.weights)]
        if self.allow_offload and self._fits_host:
            ways.append((True, True, self.streamed))
        highest = max(load.row_tokens for load in self.loads)
        for checkpointing, offload, resident in ways:
            token = max(load.token_bytes(checkpointing) for load in self.loads)
            room = {
                slots: int((self.memory - resident - (slots + 1) * self.adapter) / token)
                for slots in range(1, wanted + 1)
            }
            slots = max((count for count in room if self._tokens(count) <= room[count]), default=1)
            asked, free = self._tokens(slots), room[slots]
            if free >= highest:
                limit = free if asked > free else None
                return _Fit(slots, limit, checkpointing, offload, resident, ceil(min(asked, free) * token))
        raise UserError(self._too_small())

    @property
    def _fits_host(self) -> bool:
        """Whether the weights of all workers fit the host."""
        return self.host_memory is None or self.weights * self.workers <= self.host_memory

    def _tokens(self, slots: int) -> int:
        """Most tokens of a worker's forward when the ``slots`` largest fine-tunes of a resolution share a pack."""
        rows_by_tokens: defaultdict[int, list[int]] = defaultdict(list)
        for load in self.loads:
            rows_by_tokens[load.row_tokens].append(load.rows)
        return max(
            tokens * ceil(sum(sorted(rows)[-slots:]) / self.workers)
            for tokens, rows in rows_by_tokens.items()
        )

    def _too_small(self) -> str:
        """The message: what one row needs at least, and the remedies."""
        row = max(load.recomputed_row_bytes for load in self.loads)
        rest = row + 2 * self.adapter
        remedies = ["lower resolution or rank", "use a larger device"]
        if self.weights + rest > self.memory >= self.weights // 4 + rest:
            remedies.insert(0, "load the base with precision nf4")
        if not self.allow_offload and self.streamed + rest <= self.memory:
            remedies.insert(0, "allow the base to be offloaded to host memory")
        if self.allow_offload and not self._fits_host:
            remedies.insert(0, f"give the host {_mebibytes(self.weights)} a worker for the offloaded base")
        return (
            f"one training row needs {_mebibytes(self.weights + rest)} even with its blocks recomputed (base "
            f"{_mebibytes(self.weights)}, adapter {_mebibytes(2 * self.adapter)}, activations {_mebibytes(row)}), and a "
            f"lane's device has {_mebibytes(self.memory)}; {', '.join(remedies[:-1])}, or {remedies[-1]}"
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
