"""Banks full of random adapters on :func:`tests.support.small_sd3.small_transformer`."""

import math

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from corrector.adapters import SD3_TARGETS, Adapter, AdapterBank

SD35_TARGETS = (*SD3_TARGETS, "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
RANKS_AND_ALPHAS = {1: (4, 4.0), 2: (8, 2.0), 3: (2, 6.0)}


def random_adapter(
    bank: AdapterBank, transformer: SD3Transformer2DModel, *, rank: int, alpha: float, seed: int
) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for path in bank.targets:
        linear = transformer.get_submodule(path)
        down = torch.randn(rank, linear.in_features, generator=generator) / math.sqrt(linear.in_features)
        weights[path] = (down, torch.randn(linear.out_features, rank, generator=generator) * 0.3)
    return Adapter(rank, alpha, weights)


def adapter_of(
    transformer: SD3Transformer2DModel, targets: tuple[str, ...], *, rank: int = 4, alpha: float = 6.0
) -> Adapter:
    """A random adapter for the layers `targets` of `transformer`, which stays as it was."""
    bank = AdapterBank(transformer, slots=1, rank=rank, targets=targets)
    adapter = random_adapter(bank, transformer, rank=rank, alpha=alpha, seed=1)
    bank.remove()
    return adapter


def filled_bank(
    transformer: SD3Transformer2DModel,
    *,
    trainable: bool,
    targets: tuple[str, ...] = SD3_TARGETS,
    dtype: torch.dtype = torch.float32,
    static: bool = False,
) -> AdapterBank:
    """Slots 1 to 3 with adapters of the ranks and alphas above."""
    bank = AdapterBank(
        transformer, slots=3, rank=8, targets=targets, trainable=trainable, dtype=dtype, static=static
    )
    for slot, (rank, alpha) in RANKS_AND_ALPHAS.items():
        bank.load(slot, random_adapter(bank, transformer, rank=rank, alpha=alpha, seed=slot))
    return bank


def predict(transformer: SD3Transformer2DModel, inputs: dict[str, Tensor]) -> Tensor:
    prediction: Tensor = transformer(**inputs, return_dict=False)[0]
    return prediction


def distance(found: Tensor, expected: Tensor) -> float:
    """``|found - expected| / |expected|``, and 0 where both vanish, as gradients of the last block's
    ``add_q_proj`` do."""
    return float(((found - expected).norm() / expected.norm().clamp(min=1e-30)).detach())


LAYOUTS = {
    "equal groups of consecutive slots": [1, 1, 2, 2, 3, 3],
    "equal groups in another order": [3, 3, 1, 1, 3, 3],
    "groups with the base around them": [0, 1, 1, 2, 2, 0],
    "the base between": [2, 2, 0, 0, 3, 3],
    "no common length": [1, 2, 2, 2, 0, 3],
    "one slot": [2, 2, 2, 2, 2, 2],
}
