"""Images to latents and back, normalised for Stable Diffusion 3's transformer.

The VAE's ``shift_factor`` and ``scaling_factor`` are applied as in diffusers' ``StableDiffusion3Pipeline``:
``z' = (z - shift) * scale``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_IMAGES_AT_ONCE = 8
_PIXELS_AT_ONCE = 8 * 512 * 512
"""Bounds the memory of the VAE, whose widest activations are as large as its images."""


@dataclass(frozen=True)
class LatentPosterior:
    """The VAE's diagonal Gaussian over the latents of ``N`` images, normalised for the transformer."""

    mean: Tensor
    """``[N, C, h, w]`` float32."""
    std: Tensor
    """``[N, C, h, w]`` float32."""

    def __len__(self) -> int:
        return self.mean.shape[0]

    def sample(self, noise: Tensor) -> Tensor:
        """Latents ``mean + std * noise`` for standard normal ``noise``, broadcast against ``[N, C, h, w]``."""
        return self.mean + self.std * noise

    def to(self, device: torch.device | str) -> LatentPosterior:
        return LatentPosterior(self.mean.to(device), self.std.to(device))


@torch.no_grad()
def encode_images(vae: AutoencoderKL, images: Tensor) -> LatentPosterior:
    """Posterior of ``images [N, 3, H, W]`` with values 0 to 1; ``H`` and ``W`` multiples of the VAE's factor.

    Computed on the VAE's device in its dtype; the result is float32 on that device.
    """
    _check_images(vae, images)
    shift, scale = _normalisation(vae)
    means, stds = [], []
    for part in images.split(_at_once(images.shape[2] * images.shape[3])):
        pixels = part.to(device=vae.device, dtype=vae.dtype) * 2 - 1
        posterior = vae.encode(pixels).latent_dist
        means.append((posterior.mean.float() - shift) * scale)
        stds.append(posterior.std.float() * scale)
    return LatentPosterior(torch.cat(means), torch.cat(stds))


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Images ``[N, 3, H, W]`` float32, clamped to 0..1, of normalised ``latents [N, C, h, w]``, on the VAE's device."""
    shift, scale = _normalisation(vae)
    images = []
    pixels = latents.shape[2] * latents.shape[3] * _factor(vae) ** 2
    for part in latents.split(_at_once(pixels)):
        raw = part.to(device=vae.device, dtype=vae.dtype) / scale + shift
        decoded: Tensor = vae.decode(raw, return_dict=False)[0]
        images.append((decoded.float() / 2 + 0.5).clamp(0, 1))
    return torch.cat(images)


def _normalisation(vae: AutoencoderKL) -> tuple[float, float]:
    return vae.config.shift_factor or 0.0, vae.config.scaling_factor


def _factor(vae: AutoencoderKL) -> int:
    """Pixels per latent pixel, along each side."""
    factor: int = 2 ** (len(vae.config.block_out_channels) - 1)
    return factor


def _at_once(pixels: int) -> int:
    """Number of images of ``pixels`` pixels in one batch of the VAE."""
    return max(1, min(_IMAGES_AT_ONCE, _PIXELS_AT_ONCE // pixels))


def _check_images(vae: AutoencoderKL, images: Tensor) -> None:
    factor = _factor(vae)
    if (
        images.ndim != 4
        or images.shape[0] < 1
        or images.shape[1] != 3
        or any(n % factor for n in images.shape[2:])
    ):
        raise ValueError(
            f"images of shape {list(images.shape)}; expected [N, 3, H, W] with H and W multiples of {factor}"
        )
