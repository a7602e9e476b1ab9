"""Text embeddings and the encoders that make them, as ``StableDiffusion3Pipeline.encode_prompt`` does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextEmbeddings:
    """Embeddings of ``N`` prompts."""

    prompt: Tensor
    """``[N, T, D]``: the CLIPs' tokens, then T5's."""
    pooled: Tensor
    """``[N, P]``: the CLIPs' pooled outputs, side by side."""

    def __len__(self) -> int:
        return self.prompt.shape[0]

    def __getitem__(self, rows: int | slice | Tensor) -> TextEmbeddings:
        """The chosen rows; one row stays a batch of one."""
        if isinstance(rows, int):
            rows = slice(rows, rows + 1) if rows != -1 else slice(rows, None)
        return TextEmbeddings(self.prompt[rows], self.pooled[rows])

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> TextEmbeddings:
        return TextEmbeddings(
            self.prompt.to(device=device, dtype=dtype), self.pooled.to(device=device, dtype=dtype)
        )

    @staticmethod
    def cat(parts: Sequence[TextEmbeddings]) -> TextEmbeddings:
        """All rows of ``parts``, in order."""
        return TextEmbeddings(
            torch.cat([part.prompt for part in parts]), torch.cat([part.pooled for part in parts])
        )


class TextEncoders:
    """The base's two CLIPs and, if it has one, its T5."""

    def __init__(
        self,
        *,
        clips: Sequence[tuple[Any, Any]],
        t5: tuple[Any, Any] | None,
        max_sequence_length: int,
        width: int,
    ) -> None:
        """``clips`` and ``t5`` are (tokenizer, model); without T5 its tokens are zeros of ``width``, as in diffusers."""
        self._clips = clips
        self._t5 = t5
        self._max_sequence_length = max_sequence_length
        self._width = width

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], batch_size: int = 16) -> TextEmbeddings:
        """Embeddings of ``prompts``, in order, on the encoders' device.

        Invalid Unicode becomes "?". A prompt that is too long is cut off, with a warning in the log that names it.
        """
        texts = [prompt.encode("utf-8", "replace").decode("utf-8") for prompt in prompts]
        parts = [
            self._encode(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)
        ]
        return TextEmbeddings.cat(parts)

    def _encode(self, prompts: list[str]) -> TextEmbeddings:
        length = self._clips[0][0].model_max_length
        hidden, pooled = [], []
        for number, (tokenizer, model) in enumerate(self._clips, start=1):
            tokens = _tokens(tokenizer, prompts, length, f"CLIP {number}")
            output = model(tokens.to(model.device), output_hidden_states=True)
            pooled.append(output[0])
            hidden.append(output.hidden_states[-2].to(self._clips[0][1].dtype))
        clip = torch.cat(hidden, dim=-1)
        t5 = self._encode_t5(prompts, clip)
        padded = pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        return TextEmbeddings(torch.cat([padded, t5], dim=-2), torch.cat(pooled, dim=-1))

    def _encode_t5(self, prompts: list[str], like: Tensor) -> Tensor:
        if self._t5 is None:
            return like.new_zeros(len(prompts), self._max_sequence_length, self._width)
        tokenizer, model = self._t5
        tokens = _tokens(tokenizer, prompts, self._max_sequence_length, "T5")
        embeddings: Tensor = model(tokens.to(model.device))[0]
        return embeddings.to(model.dtype)


def _tokens(tokenizer: Any, prompts: list[str], length: int, encoder: str) -> Tensor:
    """Token ids ``[N, length]``, padded and cut to ``length``."""
    whole = tokenizer(prompts, padding=False, truncation=False, verbose=False)["input_ids"]
    for prompt, tokens in zip(prompts, whole, strict=True):
        if len(tokens) > length:
            logger.warning(
                "prompt %r is cut for %s: %d tokens, of which %d are read",
                _short(prompt),
                encoder,
                len(tokens),
                length,
            )
    ids: Tensor = tokenizer(
        prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )["input_ids"]
    return ids


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= 80 else prompt[:77] + "..."
