"""Gradient checkpointing and compilation of a transformer's blocks."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

_GRAPHS = 64
"""Most graphs of all blocks together. There are at most four kinds of block (the first, whose inputs need no gradient; with
dual attention; without; the last), each for one row and for more, in training, as the base, and in sampling: 24."""


def recompute_blocks(transformer: SD3Transformer2DModel, enable: bool) -> None:
    """Turns gradient checkpointing on or off: with it a block's forward is computed again in the backward.

    Losses and gradients are the same. Raises ValueError for an offloaded transformer without it, since autograd would keep
    all weights on the device.
    """
    if _is_streamed(transformer) and not enable:
        raise ValueError(
            "a base whose weights are streamed from host memory needs checkpointing=True to train"
        )
    if enable:
        transformer.enable_gradient_checkpointing(_checkpointed)
    else:
        transformer.disable_gradient_checkpointing()


def compile_blocks(transformer: SD3Transformer2DModel, device: torch.device, backend: str) -> bool:
    """Compiles the blocks with ``backend`` of torch.compile; returns whether that was possible.

    Equal blocks share a graph, which serves any number of rows above one and any resolution. Where ``backend`` does not
    work on this machine, the blocks stay as they are, and a warning says why.
    """
    problem = _problem(device, backend)
    if _is_streamed(transformer):
        problem = "its weights are streamed from host memory, layer by layer"
    if problem is not None:
        warnings.warn(f"the transformer runs uncompiled: {problem}", stacklevel=3)
        return False
    for block in transformer.transformer_blocks:
        block.compile(backend=backend, dynamic=True, fullgraph=True, recompile_limit=_GRAPHS)
    return True


def _is_streamed(transformer: SD3Transformer2DModel) -> bool:
    return any(parameter.is_meta for parameter in transformer.parameters())


def _checkpointed(block: torch.nn.Module, *inputs: Any) -> Any:
    # Blocks draw no random numbers. Stopping the recomputation early would save nothing, because a block keeps activations
    # to its end, and would skip the hooks that remove streamed weights.
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, early_stop=False)


def _problem(device: torch.device, backend: str) -> str | None:
    """Why ``backend`` cannot compile a forward and backward for ``device``, or None."""

    def trial(x: Tensor) -> Tensor:
        return torch.nn.functional.gelu(x)

    try:
        compiled = torch.compile(trial, backend=backend)
        compiled(torch.ones(64, device=device, requires_grad=True)).sum().backward()
    except Exception as error:  # a missing compiler, header or Triton: each backend raises its own exceptions
        return f"torch.compile({backend=}) fails on {device}: {str(error).strip().splitlines()[0]}"
    return None
