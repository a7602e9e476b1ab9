"""Sampling in shared batches: every row has its own adapter, seed, steps and guidance."""

from corrector.sampling.sampler import Sampler, SampleRow, latent_shape
from corrector.sampling.sampling_loop import sample_images, sample_latents
from corrector.sampling.schedule import FlowSchedule, flow_schedule

__all__ = [
    "FlowSchedule",
    "SampleRow",
    "Sampler",
    "flow_schedule",
    "latent_shape",
    "sample_images",
    "sample_latents",
]
