"""Sampling in shared batches: every row has its own adapter, seed, steps and guidance."""

from typing import TYPE_CHECKING

from corrector.lazy_names import lazy_names

if TYPE_CHECKING:
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "sampler": ("Sampler", "SampleRow", "latent_shape"),
        "sampling_loop": ("sample_images", "sample_latents"),
        "schedule": ("FlowSchedule", "flow_schedule"),
    },
)
