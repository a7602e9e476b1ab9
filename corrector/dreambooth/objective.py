"""The SD3 fine-tuning objective as pure functions: timestep density, flow-matching path, weighting, loss.

The mathematics is that of diffusers' ``examples/dreambooth/train_dreambooth_lora_sd3.py`` and of Esser et al.,
*Scaling Rectified Flow Transformers* (arXiv 2403.03206), sections 2 and 3.1. Shapes: ``N`` rows, latents
``[N, C, h, w]`` normalised with the VAE's shift and scale, one value per row ``[N]`` for ``u``, sigma, timestep and
weight. Everything is float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler

TimestepDensity = Literal["logit_normal", "mode", "cosmap", "uniform", "sigma_sqrt"]


@dataclass(frozen=True)
class NoiseTable:
    """The training noise levels of a scheduler, from the noisiest down: ``sigmas [K]`` and ``timesteps [K]``."""

    sigmas: Tensor
    timesteps: Tensor

    @staticmethod
    def of(scheduler: FlowMatchEulerDiscreteScheduler) -> NoiseTable:
        """Read from the scheduler's configuration, so one that is sampling at the same time changes nothing."""
        fresh = type(scheduler).from_config(scheduler.config)
        return NoiseTable(fresh.sigmas.float().cpu(), fresh.timesteps.float().cpu())

    def at(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Sigma and timestep, both ``[N]``, at quantiles ``u [N]`` of the table; 0 is the noisiest entry.

        ``u`` of exactly 1, which a saturated logit-normal draw can give, means the last entry.
        """
        last = self.sigmas.shape[0] - 1
        index = (u * (last + 1)).long().clamp(0, last)
        return self.sigmas[index], self.timesteps[index]


def sample_density(
    density: TimestepDensity,
    count: int,
    *,
    logit_mean: float = 0.0,
    logit_std: float = 1.0,
    mode_scale: float = 1.29,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws ``u [count]`` in [0, 1]: "logit_normal" and "mode" as the paper's equations 19 and 20, else uniform.

    "cosmap" and "sigma_sqrt" draw uniformly and weight the loss instead, see :func:`loss_weights`.
    """
    if density == "logit_normal":
        return torch.sigmoid(torch.normal(logit_mean, logit_std, (count,), generator=generator))
    u = torch.rand(count, generator=generator)
    if density == "mode":
        return 1 - u - mode_scale * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
    return u


def noisy_latents(latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """The straight path from data to noise at ``sigmas [N]``: ``(1 - sigma) latents + sigma noise``."""
    sigmas = sigmas.view(-1, *[1] * (latents.ndim - 1))
    return (1.0 - sigmas) * latents + sigmas * noise


def velocity(latents: Tensor, noise: Tensor) -> Tensor:
    """The transformer's target: the path's derivative by sigma, ``noise - latents``."""
    return noise - latents


def loss_weights(density: TimestepDensity, sigmas: Tensor, *, precondition: bool) -> Tensor:
    """Weight ``[N]`` of a row's mean squared velocity error at ``sigmas [N]``.

    With ``precondition`` the reference compares clean latents, ``noisy - sigma * prediction`` against ``latents``.
    That difference is ``-sigma`` times the velocity's error, so preconditioning is a factor sigma² here.
    """
    if density == "sigma_sqrt":
        weights = sigmas**-2.0
    elif density == "cosmap":
        weights = 2 / (math.pi * (1 - 2 * sigmas + 2 * sigmas**2))
    else:
        weights = torch.ones_like(sigmas)
    return weights * sigmas**2 if precondition else weights


def row_losses(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Loss of every row ``[N]``: ``weights [N]`` times the mean squared difference over a row's own elements."""
    return weights * (prediction.float() - target.float()).square().flatten(1).mean(1)
