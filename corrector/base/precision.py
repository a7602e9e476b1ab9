"""Precision of the transformer's weights, and quantisation to four bits.

``nf4`` (4-bit NormalFloat with doubly quantised scales, as in QLoRA, arXiv:2305.14314) is bitsandbytes'. Its Linears keep
only the 4-bit weights for the backward pass, so it saves as much memory in training as in sampling. The Linears of attention
and feed-forward are quantised; modulation (``norm*``), embeddings and the output projection are not. Quantised modulation
would raise the error of the prediction from 0.10 to 0.11 of its norm on the embedded base, and from 0.09 to 0.11 on two
random layers of SD3.5-medium (``python -m tests.benchmarks.precision``).

fp8 is not offered: autograd would keep every weight in its wider form until the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from corrector.errors import UserError

if TYPE_CHECKING:
    import torch
    from bitsandbytes.nn import Linear4bit
    from torch import Tensor, nn

_BLOCKS = (64, 32)
"""Weights that share a scale; they divide a row, as bitsandbytes' CPU kernel requires."""
_SCALE_BLOCK = 256
"""Scales that share a second-level scale."""
_FIXED_BYTES = 256 * 4 + 16 * 4 + 4
"""For each Linear: two code books and the scales' mean."""


def is_quantised_weight(name: str, shape: Sequence[int]) -> bool:
    """Whether nf4 quantises the transformer's parameter ``name``, in diffusers' layout."""
    in_block = name.startswith("transformer_blocks.") and name.endswith(".weight") and len(shape) == 2
    modulates = any(part.startswith("norm") for part in name.split("."))
    return in_block and not modulates and _block(shape[1]) is not None


def nf4_bytes(shape: Sequence[int]) -> int:
    """Memory of a quantised weight ``[out, in]`` in nf4, scales and code books included."""
    weights = prod(shape)
    scales = weights // _block_of(shape[1])
    return -(-weights // 2) + scales + 4 * -(-scales // _SCALE_BLOCK) + _FIXED_BYTES


def require_bitsandbytes() -> None:
    """Raises :class:`UserError` where the library that quantises is not installed."""
    if find_spec("bitsandbytes") is None:
        raise UserError(
            'precision "nf4" needs bitsandbytes; pip install bitsandbytes, or choose precision bf16'
        )


def quantise(transformer: nn.Module, *, device: torch.device, dtype: torch.dtype) -> None:
    """Replaces Linears by nf4's, which compute in ``dtype``, one at a time, and moves everything to ``device``."""
    for parent, attribute, linear in list(_quantised_linears(transformer)):
        setattr(parent, attribute, _nf4(linear, dtype).to(device))
    transformer.to(device)


def _quantised_linears(transformer: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    from torch import nn

    for name, module in transformer.named_modules():
        for attribute, child in module.named_children():
            if isinstance(child, nn.Linear) and is_quantised_weight(
                f"{name}.{attribute}.weight", child.weight.shape
            ):
                yield module, attribute, child


def _nf4(linear: nn.Linear, dtype: torch.dtype) -> Linear4bit:
    from bitsandbytes.nn import Linear4bit, Params4bit

    quantised = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    # Some CPUs would repack the weights in place at the first prediction without gradients; a later backward would fail.
    quantised.support_avx512bf16_for_cpu = False
    quantised.weight = Params4bit(
        linear.weight.data,
        requires_grad=False,
        quant_type="nf4",
        blocksize=_block_of(linear.in_features),
        compress_statistics=True,
        module=quantised,
    )
    quantised.bias = linear.bias
    return quantised.requires_grad_(False).eval()


def rounding_error(weights: Iterable[Tensor], kept: Literal["nf4"] | torch.dtype) -> float:
    """Relative error of ``weights`` rounded to ``kept``: norm of the difference over the norm."""
    changed = total = 0.0
    for weight in weights:
        exact = weight.float()
        changed += float((rounded(exact, kept) - exact).square().sum())
        total += float(exact.square().sum())
    return float((changed / total) ** 0.5) if total else 0.0


def rounded(weight: Tensor, kept: Literal["nf4"] | torch.dtype) -> Tensor:
    if not isinstance(kept, str):
        return weight.to(kept).float()
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed: Any = quantize_4bit(
        weight, blocksize=_block_of(weight.shape[1]), compress_statistics=True, quant_type=kept
    )
    restored: Tensor = dequantize_4bit(*packed)
    return restored.view_as(weight)


def _block(columns: int) -> int | None:
    """Weights that share a scale in rows of ``columns`` weights; None where no block size divides a row."""
    return next((size for size in _BLOCKS if columns % size == 0), None)


def _block_of(columns: int) -> int:
    size = _block(columns)
    assert size is not None, f"rows of {columns} weights are not quantised"
    return size
