"""A small network that compares two prompts token by token, by MiniLM's vectors in context.

A sentence vector cannot tell "a shepherd shearing a sheep" from "a sheep shearing a shepherd". Here each token is compared
with the tokens of the other prompt that it attends to (decomposable attention, Parikh et al. 2016, arXiv 1606.01933), and a
transformer layer relates the comparisons to each other (inference composition, Chen et al. 2017, arXiv 1609.06038).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from serving.router.embedding import DIMENSIONS

WEIGHTS = Path(__file__).with_name("alignment_network.safetensors")
_PROJECTED = 96
_COMPARED = 64
_HEADS = 4
_DROPOUT = 0.3


class AlignmentNetwork(nn.Module):
    """Logits that two prompts mean the same, from their tokens' unit vectors; 149,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(_DROPOUT)
        self.project = nn.Linear(DIMENSIONS, _PROJECTED)
        self.key = nn.Linear(DIMENSIONS, _PROJECTED, bias=False)
        self.cosine_scale = nn.Parameter(torch.tensor(8.0))
        self.compare = nn.Sequential(
            nn.Linear(4 * _PROJECTED + 3, _COMPARED), nn.GELU(), nn.Dropout(_DROPOUT)
        )
        self.side = nn.Parameter(torch.zeros(2, _COMPARED))
        self.relate = nn.TransformerEncoderLayer(
            _COMPARED, _HEADS, 2 * _COMPARED, _DROPOUT, batch_first=True, norm_first=True
        )
        self.classify = nn.Sequential(
            nn.Linear(4 * _COMPARED + 1, _COMPARED), nn.GELU(), nn.Dropout(_DROPOUT), nn.Linear(_COMPARED, 1)
        )

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Logits `[B]` of tokens `[B, T, 384]` and `[B, U, 384]`, each padded with zero vectors."""
        there, present = (tokens.abs().sum(-1) > 0 for tokens in (one, other))
        cosines = one @ other.transpose(1, 2)
        attention = self.cosine_scale * cosines + self.key(one) @ self.key(other).transpose(1, 2)
        projected = self.project(self.dropout(one)), self.project(self.dropout(other))
        first = self._compared(*projected, attention, cosines, present) + self.side[0]
        second = (
            self._compared(*projected[::-1], attention.transpose(1, 2), cosines.transpose(1, 2), there)
            + self.side[1]
        )
        related = self.relate(
            torch.cat([first, second], 1), src_key_padding_mask=~torch.cat([there, present], 1)
        )
        sides = related.split([one.shape[1], other.shape[1]], dim=1)
        pooled = [
            pool for side, mask in zip(sides, (there, present), strict=True) for pool in _pooled(side, mask)
        ]
        sentences = normalize(one.sum(1), dim=-1), normalize(other.sum(1), dim=-1)
        likeness = (sentences[0] * sentences[1]).sum(-1, keepdim=True)
        logits: Tensor = self.classify(torch.cat([*pooled, likeness], -1)).squeeze(-1)
        return logits

    def _compared(
        self, own: Tensor, other: Tensor, attention: Tensor, cosines: Tensor, present: Tensor
    ) -> Tensor:
        """Each own token beside what it attends to, `[B, T, 64]`; `present` `[B, U]` says which others are no padding."""
        weights = attention.masked_fill(~present[:, None], -1e4).softmax(-1)
        aligned = weights @ other
        nearest = cosines.masked_fill(~present[:, None], -1.0).amax(-1, keepdim=True)
        expected = (weights * cosines).sum(-1, keepdim=True)
        entropy = -(weights * (weights + 1e-6).log()).sum(-1, keepdim=True)
        features = [own, aligned, (own - aligned).abs(), own * aligned, nearest, expected, entropy]
        compared: Tensor = self.compare(torch.cat(features, -1))
        return compared


def _pooled(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and maximum `[B, D]` of the tokens that are no padding."""
    mean = (tokens * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    return mean, tokens.masked_fill(~mask.unsqueeze(-1), -1e4).amax(1)


def padded(prompts: Sequence[NDArray[np.float16]]) -> Tensor:
    """Tokens `[T, 384]` of several prompts as one tensor `[B, T, 384]`; the shorter ones end with zero vectors."""
    return nn.utils.rnn.pad_sequence(
        [torch.from_numpy(tokens).float() for tokens in prompts], batch_first=True
    )


def alignments(
    network: AlignmentNetwork, texts: Sequence[NDArray[np.float16]], asked: NDArray[np.float16]
) -> list[float]:
    """For each of `texts`, the logit that it means what `asked` means; all are tokens `[T, 384]`. Without tokens, 0."""
    if not texts or not all(map(len, (asked, *texts))):
        return [0.0] * len(texts)
    with torch.inference_mode():
        others = torch.from_numpy(asked).float().expand(len(texts), -1, -1)
        found: list[float] = network(padded(texts), others).tolist()
    return found


@lru_cache(maxsize=1)
def alignment_network() -> AlignmentNetwork:
    """The network with the weights that `python -m tests.benchmarks.router_training` fitted."""
    from safetensors.torch import load_file

    network = AlignmentNetwork()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return network.eval().requires_grad_(False)
