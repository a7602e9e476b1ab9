"""Conversion of LoRA between diffusers' layout and the original one, in which q, k and v are one Linear.

Three LoRAs of rank ``r`` are one of rank ``3r`` on the fused layer: their A stacked, their B along a block diagonal.
That and its inverse move numbers without changing them. Trainers of the fused layer make a B that is not block diagonal:
this LoRA becomes three that share A, each with a third of B's rows.

kohya's ``split_qkv`` trains three LoRAs of rank ``r`` and saves them fused with the alpha of one, so its own inference
and ComfyUI apply a third of the trained update. This reader does the same.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from corrector.adapters.adapter import AdapterError
from corrector.adapters.formats import names


class LoraFactors(NamedTuple):
    """LoRA of one Linear: it adds ``(alpha / r) * up @ down @ x``."""

    down: Tensor
    """``A [r, in]``."""
    up: Tensor
    """``B [out, r]``."""
    alpha: float | None
    """None where the file does not say."""


def split(layer: str, factors: LoraFactors, rank: int | None) -> dict[str, LoraFactors]:
    """Splits LoRA of ``layer`` in the original layout into equivalent LoRAs by diffusers' path.

    ``rank`` is the rank that the file gives, or None; a fused LoRA of exactly this rank is not read as three of a third
    of it. Raises :class:`AdapterError` if the outputs do not divide into q, k and v.
    """
    paths = names.diffusers_layers(layer)
    down, up, alpha = factors
    if len(paths) == 1:
        return {paths[0]: LoraFactors(down, _reorder(layer, down, up), alpha)}
    if up.shape[0] % len(paths):
        raise AdapterError(
            f"{names.kohya_layer(layer)} has {up.shape[0]} outputs; q, k and v need a multiple of {len(paths)}: "
            "the adapter was made for another model"
        )
    ups = up.chunk(len(paths))
    blocks = _diagonal(ups) if down.shape[0] != rank else None
    if blocks is None:
        return {path: LoraFactors(down, third, alpha) for path, third in zip(paths, ups, strict=True)}
    each = None if alpha is None else alpha / len(paths)
    downs = down.chunk(len(paths))
    return {
        path: LoraFactors(down, block, each) for path, down, block in zip(paths, downs, blocks, strict=True)
    }


def fuse(
    weights: Mapping[str, tuple[Tensor, Tensor]], alpha: float
) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Converts LoRAs by diffusers' path to A, B and alpha by path in the original layout; the inverse of :func:`split`.

    Where only some of q, k and v have one, the others get zeros; where their dtypes differ, they share the widest.
    Raises :class:`AdapterError` for a layer that the original layout does not have, and for q, k and v of different
    sizes.
    """
    groups: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
    for path, pair in weights.items():
        groups.setdefault(names.original_layer(path), {})[path] = pair
    return {layer: _fuse_one(layer, group, alpha) for layer, group in groups.items()}


def _fuse_one(
    layer: str, group: Mapping[str, tuple[Tensor, Tensor]], alpha: float
) -> tuple[Tensor, Tensor, float]:
    paths = names.diffusers_layers(layer)
    if len(paths) == 1:
        down, up = group[paths[0]]
        return down, _reorder(layer, down, up), alpha
    given = list(group.values())
    if len({(down.shape, up.shape) for down, up in given}) > 1:
        raise AdapterError(f"{', '.join(group)} have different sizes; in Stable Diffusion 3 they are equal")
    first_down, first_up = given[0]
    absent = (torch.zeros_like(first_down), torch.zeros_like(first_up))
    downs, ups = zip(*(group.get(path, absent) for path in paths), strict=True)
    if all(_same_bits(down, first_down) for down, _ in given):
        return first_down, torch.cat(ups), alpha
    return torch.cat(downs), torch.block_diag(*ups), alpha * len(paths)


def _reorder(layer: str, down: Tensor, up: Tensor) -> Tensor:
    """``up`` in the other layout's order of outputs: shift and scale are swapped if they are the only outputs."""
    if names.is_shift_and_scale(layer) and up.shape[0] == 2 * down.shape[1]:
        return torch.cat(up.chunk(2)[::-1])
    return up


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether both have equal bits; 0 and -0 differ."""
    return one.dtype == other.dtype and torch.equal(
        one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)
    )


def _diagonal(ups: tuple[Tensor, ...]) -> list[Tensor] | None:
    """The blocks ``[out, r / 3]`` of stacked rows ``[out, r]`` if all is zero outside a block diagonal, else None."""
    if ups[0].shape[1] % len(ups):
        return None
    blocks = []
    for number, rows in enumerate(ups):
        columns = rows.chunk(len(ups), dim=1)
        if any(bool(block.any()) for other, block in enumerate(columns) if other != number):
            return None
        blocks.append(columns[number])
    return blocks
