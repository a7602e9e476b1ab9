"""Memory that a base's transformer needs, computed before it is loaded, and the cost of its precision."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import psutil
import torch
from safetensors import safe_open
from torch import Tensor

from corrector.base.headers import read_headers
from corrector.base.precision import is_quantised_weight, nf4_bytes, require_bitsandbytes, rounding_error
from corrector.base.spec import QUANTISED, BaseSpec, Precision
from corrector.base.weights import transformer_files, transformer_skeleton
from corrector.errors import UserError

_DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_ROUNDED_WEIGHTS = re.compile(r"(joint|transformer)_blocks\.\d+\.(?!.*(norm|adaLN)).*\.weight$")
"""Weights that nf4 quantises, in either layout of names."""
_LOOKED_AT = 2**16
"""Weights of every matrix that are read to measure the error."""


@dataclass(frozen=True)
class PrecisionCost:
    """Memory and error of the transformer in a precision."""

    precision: str
    """``nf4``, or the dtype's short name."""
    bytes: int
    """Of the transformer's weights."""
    bytes_bf16: int
    """Of the same weights in bf16."""
    weight_error: float
    """Relative error of the blocks' weights in memory against those in the file."""

    def __str__(self) -> str:
        return (
            f"{self.precision}: {gibibytes(self.bytes)}, {self.bytes / self.bytes_bf16:.2f} of bf16's; "
            f"weights are off by {self.weight_error:.2%} of their norm"
        )


def transformer_bytes(
    spec: BaseSpec,
    device: torch.device | str,
    *,
    dtype: torch.dtype | None = None,
    offload: bool = False,
) -> int:
    """Bytes of the transformer's weights on ``device``, from its configuration; with ``offload``, of its largest block.

    ``dtype`` is as for ``load_transformer``. Raises :class:`UserError` if the configuration is not a transformer's.
    """
    itemsize = (dtype or spec.compute_dtype(device)).itemsize
    sizes: dict[str, int] = {}
    for name, tensor in transformer_skeleton(spec).state_dict().items():
        quantised = spec.precision == "nf4" and is_quantised_weight(name, tensor.shape)
        size = nf4_bytes(tensor.shape) if quantised else tensor.numel() * itemsize
        streamed = ".".join(name.split(".")[:2])
        sizes[streamed] = sizes.get(streamed, 0) + size
    return max(sizes.values()) if offload else sum(sizes.values())


def ensure_memory(
    spec: BaseSpec,
    device: torch.device | str,
    *,
    dtype: torch.dtype | None = None,
    offload: bool = False,
    free: int | None = None,
) -> None:
    """Raises :class:`UserError`, with the estimate and remedies, where the weights do not fit ``device``.

    ``free`` is its memory in bytes; None: what is free now. With ``offload`` the host's memory is checked too.
    """
    device = torch.device(device)
    dtype = dtype or spec.compute_dtype(device)
    offload = offload and device.type != "cpu"
    free = free_memory(device) if free is None else free
    needed = transformer_bytes(spec, device, dtype=dtype, offload=offload)
    if needed > free:
        raise UserError(
            f'base "{spec.reference}": its transformer needs {gibibytes(needed)} in {_kept_in(spec, dtype)}'
            f"{' a block at a time' if offload else ''}, {device} has {gibibytes(free)} free; "
            f"{_remedy(spec, device, free)}"
        )
    if offload:
        try:
            ensure_memory(spec, "cpu", dtype=dtype)
        except UserError as error:
            raise UserError(f"{error} (offloaded weights stay in this machine's memory)") from None


def free_memory(device: torch.device | str) -> int:
    """Bytes that this process can still allocate on ``device``, torch's unused reserve included."""
    device = torch.device(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return int(psutil.virtual_memory().available)


def describe_precision(spec: BaseSpec, device: torch.device | str) -> PrecisionCost:
    """Memory and error of the base's precision on ``device``, measured on part of every block's matrices.

    Reads about 2 % of the weights of Stable Diffusion 3, which are downloaded if need be. Raises :class:`UserError` where
    they cannot be read, or the quantising package is not installed.
    """
    dtype = spec.compute_dtype(device)
    if spec.precision in QUANTISED:
        require_bitsandbytes()
    kept: Literal["nf4"] | torch.dtype = "nf4" if spec.precision == "nf4" else dtype
    return PrecisionCost(
        precision=_kept_in(spec, dtype),
        bytes=transformer_bytes(spec, device),
        bytes_bf16=transformer_bytes(_in_precision(spec, "bf16"), device),
        weight_error=rounding_error(_parts_of_matrices(spec), kept),
    )


def gibibytes(size: int) -> str:
    """``size`` bytes as text: ``3.8 GiB``, ``21.7 MiB``."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _parts_of_matrices(spec: BaseSpec) -> Iterator[Tensor]:
    """The first rows of every matrix that nf4 quantises, as the checkpoint has them."""
    for path in transformer_files(spec):
        headers = read_headers([path])
        with safe_open(path, framework="pt") as file:
            for name, header in headers.items():
                if len(header.shape) == 2 and _ROUNDED_WEIGHTS.search(name):
                    yield file.get_slice(name)[: max(1, _LOOKED_AT // header.shape[1])]


def _remedy(spec: BaseSpec, device: torch.device, free: int) -> str:
    """What would fit into ``free`` bytes."""
    ways = []
    for precision in ("bf16", "nf4"):
        needed = transformer_bytes(_in_precision(spec, precision), device)
        if precision != spec.precision and needed <= free:
            ways.append(f"precision {precision} ({gibibytes(needed)})")
    if device.type != "cpu" and spec.precision not in QUANTISED:
        ways.append("offload")
    ways.append("a larger device" if device.type != "cpu" else "a machine with more memory")
    return f"use {', '.join(ways[:-1])} or {ways[-1]}" if len(ways) > 1 else f"use {ways[0]}"


def _in_precision(spec: BaseSpec, precision: Precision) -> BaseSpec:
    return replace(spec, precision=precision)


def _kept_in(spec: BaseSpec, dtype: torch.dtype) -> str:
    return spec.precision if spec.precision in QUANTISED else _DTYPE_NAMES.get(dtype, str(dtype))
