"""Sampling of a list of rows, a bounded number of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corrector.adapters import AdapterBank
from corrector.base import TextEmbeddings, decode_latents
from corrector.sampling.sampler import Sampler, SampleRow

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel


def sample_latents(
    transformer: SD3Transformer2DModel,
    bank: AdapterBank | None,
    scheduler: FlowMatchEulerDiscreteScheduler,
    rows: Sequence[SampleRow],
    *,
    height: int,
    width: int,
    vae_scale_factor: int,
    batch_rows: int = 16,
    progress: Callable[[int], None] | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Latents ``[N, C, h, w]`` float32 of ``rows``, normalised, on ``device``; sizes are in pixels.

    At most ``batch_rows`` rows share a batch (a guided row is two of the transformer's); rows that are done are replaced
    by the next. ``progress`` is called with the number of rows done. ``device`` and errors are those of :class:`Sampler`.
    """
    if batch_rows < 1:
        raise ValueError(f"batch_rows is {batch_rows}; it must be at least 1")
    device = torch.device(device or transformer.device)
    sampler = Sampler(
        transformer,
        bank,
        scheduler,
        height=height,
        width=width,
        vae_scale_factor=vae_scale_factor,
        device=device,
    )
    waiting = _on_device(rows, device, transformer.dtype)
    latents: dict[int, Tensor] = {}
    admitted = 0
    while len(latents) < len(waiting):
        free = batch_rows - len(sampler)
        if free and admitted < len(waiting):
            admitted += len(sampler.admit(waiting[admitted : admitted + free]))
        finished = sampler.step()
        if finished:
            latents |= finished
            if progress is not None:
                progress(len(latents))
    if not latents:
        side = (height // vae_scale_factor, width // vae_scale_factor)
        return torch.empty(0, transformer.config.in_channels, *side, device=device)
    return torch.stack([latents[ticket] for ticket in range(len(waiting))])


def sample_images(
    transformer: SD3Transformer2DModel,
    vae: AutoencoderKL,
    bank: AdapterBank | None,
    scheduler: FlowMatchEulerDiscreteScheduler,
    rows: Sequence[SampleRow],
    *,
    height: int,
    width: int,
    batch_rows: int = 16,
    progress: Callable[[int], None] | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Images ``[N, 3, height, width]`` float32, 0 to 1, on the VAE's device; otherwise as
    :func:`sample_latents`.

    In float32 equal to ``StableDiffusion3Pipeline`` for the same prompt embeddings and CPU generator seed
    to 1e-4.
    """
    latents = sample_latents(
        transformer,
        bank,
        scheduler,
        rows,
        height=height,
        width=width,
        vae_scale_factor=2 ** (len(vae.config.block_out_channels) - 1),
        batch_rows=batch_rows,
        progress=progress,
        device=device,
    )
    if not len(latents):
        return torch.empty(0, 3, height, width, device=vae.device)
    return decode_latents(vae, latents)


def _on_device(rows: Sequence[SampleRow], device: torch.device, dtype: torch.dtype) -> list[SampleRow]:
    """The rows with their embeddings on ``device`` in ``dtype``, each distinct embedding moved once."""
    moved: dict[int, TextEmbeddings] = {}

    def move(embeddings: TextEmbeddings) -> TextEmbeddings:
        if id(embeddings) not in moved:
            moved[id(embeddings)] = embeddings.to(device, dtype)
        return moved[id(embeddings)]

    return [
        replace(row, prompt=move(row.prompt), negative=None if row.negative is None else move(row.negative))
        for row in rows
    ]
