"""The timesteps of a sample, as ``FlowMatchEulerDiscreteScheduler`` sets them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from corrector.errors import UserError

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler


@dataclass(frozen=True)
class FlowSchedule:
    """The Euler steps from noise (sigma 1) to image (sigma 0)."""

    timesteps: Tensor
    """``[steps]`` float32: what the transformer is told, sigma times the number of training steps."""
    deltas: Tensor
    """``[steps]`` float32: change of sigma in each step, negative."""

    def __len__(self) -> int:
        return self.timesteps.shape[0]


def flow_schedule(
    scheduler: FlowMatchEulerDiscreteScheduler, num_inference_steps: int, *, image_tokens: int
) -> FlowSchedule:
    """The schedule of ``StableDiffusion3Pipeline``; ``scheduler`` is not changed.

    ``image_tokens`` is the number of image patches, which matters for a scheduler with dynamic shifting. Raises
    :class:`UserError` for fewer than one step and for a stochastic scheduler.
    """
    if num_inference_steps < 1:
        raise UserError(f"num_inference_steps is {num_inference_steps}; it must be at least 1")
    config = scheduler.config
    if config.get("stochastic_sampling"):
        raise UserError(
            "the base's scheduler sets stochastic_sampling; only deterministic sampling is supported"
        )
    own = deepcopy(scheduler)
    if config.get("use_dynamic_shifting"):
        own.set_timesteps(num_inference_steps, mu=_shift_for(image_tokens, scheduler))
    else:
        own.set_timesteps(num_inference_steps)
    return FlowSchedule(timesteps=own.timesteps.clone(), deltas=own.sigmas[1:] - own.sigmas[:-1])


def _shift_for(image_tokens: int, scheduler: FlowMatchEulerDiscreteScheduler) -> float:
    """diffusers' ``calculate_shift``, with the defaults at its call in ``pipeline_stable_diffusion_3.py``."""
    config = scheduler.config
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, top = config.get("base_shift", 0.5), config.get("max_shift", 1.16)
    return float(base + (image_tokens - low) * (top - base) / (high - low))
