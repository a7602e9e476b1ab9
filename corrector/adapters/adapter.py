"""One LoRA adapter as plain tensors, and the error that a bad one raises."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import isfinite

import torch
from torch import Tensor

from corrector.errors import UserError

SD3_TARGETS: tuple[str, ...] = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
)
"""Suffixes of the Linears that an adapter changes: those of diffusers' ``train_dreambooth_lora_sd3.py``."""


class AdapterError(UserError):
    """A wrong adapter, or a wrong use of one; the message names the weight or slot."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: to every target Linear ``y = W x`` it adds ``(alpha / rank) * B A x``.

    Construction checks it and raises :class:`AdapterError`, naming the weight, where shapes or values are wrong.
    """

    rank: int
    """Rows of every ``A`` and columns of every ``B``."""
    alpha: float
    """LoRA's alpha; the update is scaled by ``alpha / rank``."""
    weights: Mapping[str, tuple[Tensor, Tensor]]
    """Module path in the transformer -> (``A [rank, in]``, ``B [out, rank]``)."""
    base_revision: str | None = None
    """Revision of the base that it was trained on; None where that is not known."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Lineage, stored in the file's header."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise AdapterError(f"adapter rank is {self.rank}; it must be at least 1")
        if not (isfinite(self.alpha) and self.alpha > 0):
            raise AdapterError(f"adapter alpha is {self.alpha}; it must be a positive number")
        if not self.weights:
            raise AdapterError("adapter has no weights")
        for path, (down, up) in self.weights.items():
            _check_pair(path, down, up, self.rank)

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def folded(self) -> "Adapter":
        """The same update with alpha equal to the rank: the scale is in every ``B``, which is float32 at least.

        Programs that ignore alpha then apply it with the right strength.
        """
        if self.alpha == self.rank:
            return self
        weights = {path: (down, scaled(up, self.scale)) for path, (down, up) in self.weights.items()}
        return replace(self, alpha=float(self.rank), weights=weights)


def scaled(up: Tensor, ratio: float) -> Tensor:
    """``ratio * up`` in float32 at least; ``up`` itself where the ratio is 1."""
    return up if ratio == 1 else up.to(torch.promote_types(up.dtype, torch.float32)) * ratio


def _check_pair(path: str, down: Tensor, up: Tensor, rank: int) -> None:
    for name, weight, dimension in (("lora_A", down, 0), ("lora_B", up, 1)):
        key = f"{path}.{name}.weight"
        if not weight.is_floating_point():
            raise AdapterError(f"{key} holds {weight.dtype}; expected floating-point numbers")
        if weight.ndim != 2 or weight.shape[dimension] != rank:
            expected = f"[{rank}, in]" if name == "lora_A" else f"[out, {rank}]"
            raise AdapterError(f"{key} has shape {list(weight.shape)}; expected {expected} at rank {rank}")
        if not bool(torch.isfinite(weight).all()):
            raise AdapterError(
                f"{key} holds NaN or infinite values; the adapter is damaged or diverged in training"
            )
