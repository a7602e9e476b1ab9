"""Activation memory of the Stable Diffusion 3 family at its real widths: what a training step takes against the prediction.

    python -m tests.benchmarks.activations [--layers N]

prints a table. Fake tensors run the very transformer, adapter bank and backward of the engine without holding a number, and
a dispatch mode adds up the storages that live: of all but weights, adapters and their gradients, at the worst moment. The
run is for the CPU, where attention goes through ``_scaled_dot_product_flash_attention_for_cpu``; like the flash and
efficient kernels of CUDA it keeps queries, keys, values, its output and the logarithm of the sums.
"""

import argparse
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from corrector.adapters import AdapterBank
from corrector.dreambooth.blocks import recompute_blocks
from corrector.dreambooth.transformer_cost import TransformerCost
from tests.support.sd3_family import (
    MODELS,
    TOKENS,
    VAE_SCALE_FACTOR,
    Model,
    configuration,
    random_transformer,
)

ATTENTION = "aten._scaled_dot_product_flash_attention_for_cpu.default"


@dataclass(frozen=True)
class Case:
    """A training step of ``rows`` rows, each of its own adapter."""

    model: Model
    resolution: int
    rank: int
    rows: int
    checkpointing: bool
    layers: int | None = None
    dtype: torch.dtype = torch.bfloat16
    sampling: bool = False
    """A forward without gradients instead."""

    @property
    def predicted(self) -> int:
        """Bytes by :class:`TransformerCost`."""
        cost = TransformerCost.of(configuration(self.model, layers=self.layers))
        patches = (self.resolution // VAE_SCALE_FACTOR // cost.patch) ** 2
        if self.sampling:
            return self.rows * cost.sampling_bytes(patches, TOKENS, self.dtype.itemsize)
        return self.rows * cost.activation_bytes(
            patches, TOKENS, self.dtype.itemsize, rank=self.rank, checkpointing=self.checkpointing
        )


class StorageTracker(TorchDispatchMode):
    """Bytes of the storages that operations made, ``known`` tensors' left out: those that live, and the most ever."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self.operations: set[str] = set()
        self._seen: dict[int, Any] = {_key(tensor): None for tensor in known}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations.add(str(func))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in self._seen:
                self._add(tensor)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        size = storage.nbytes()

        def gone(_: object) -> None:
            self.live -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)


def track(case: Case) -> StorageTracker:
    """Runs ``case`` under fake tensors."""
    with FakeTensorMode():
        transformer = random_transformer(case.model, layers=case.layers, dtype=case.dtype)
        recompute_blocks(transformer, case.checkpointing)
        bank = AdapterBank(transformer, slots=case.rows, rank=case.rank, trainable=True)
        for slot in range(1, case.rows + 1):
            bank.initialise(slot, rank=case.rank)
        for parameter in bank.parameters():
            parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in bank.parameters() if parameter.grad is not None]
        config, side = transformer.config, case.resolution // VAE_SCALE_FACTOR
        known = [*transformer.parameters(), *transformer.buffers(), *bank.parameters(), *gradients]
        tracker = StorageTracker(known)
        with torch.set_grad_enabled(not case.sampling), tracker, bank.rows(range(1, case.rows + 1)):
            prediction = transformer(
                hidden_states=torch.randn(case.rows, config.in_channels, side, side, dtype=case.dtype),
                timestep=torch.rand(case.rows),
                encoder_hidden_states=torch.randn(case.rows, TOKENS, config.joint_attention_dim, dtype=case.dtype),
                pooled_projections=torch.randn(case.rows, config.pooled_projection_dim, dtype=case.dtype),
            ).sample  # fmt: skip
            if not case.sampling:
                prediction.float().square().mean().backward()
    assert ATTENTION in tracker.operations
    return tracker


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def main() -> None:
    parser = argparse.ArgumentParser(description="Tracked and predicted activation memory, bfloat16.")
    parser.add_argument("--layers", type=int, help="depth of the transformers; default: their own")
    layers = parser.parse_args().layers
    print(
        f"{'model':14} {'side':>5} {'rank':>4} {'rows':>4} {'kept':>11} {'tracked':>9} {'predicted':>9} {'error':>6}"
    )
    for model in MODELS:
        for resolution in (512, 1024):
            for rank, rows in ((4, 1), (16, 1), (128, 1), (16, 4), (16, 16)):
                for kept in ("everything", "blocks", "nothing"):
                    checkpointing, sampling = kept == "blocks", kept == "nothing"
                    case = Case(model, resolution, rank, rows, checkpointing, layers, sampling=sampling)
                    tracked, predicted = track(case).peak, case.predicted
                    print(
                        f"{model:14} {resolution:5} {rank:4} {rows:4} {kept:>11} {tracked / 1e9:6.2f} GB "
                        f"{predicted / 1e9:6.2f} GB {predicted / tracked - 1:+6.1%}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
