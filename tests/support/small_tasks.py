"""Fine-tunes on random latents and text for the small transformer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from corrector.base import LatentPosterior, TextEmbeddings
from corrector.dreambooth import Engine, FineTune
from corrector.dreambooth.checkpoint import read_state, resume_state, write_state
from corrector.prompts import HyperParameters
from tests.support.small_sd3 import (
    LATENT_CHANNELS,
    LATENT_SIZE,
    Variant,
    small_transformer,
    transformer_inputs,
)

RANK = 8
"""The engines' rank; the fine-tunes' own are at most this."""


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)


def engine(
    slots: int, *, variant: Variant = "sd3", dtype: torch.dtype = torch.float32, **options: Any
) -> Engine:
    transformer = small_transformer(variant)
    if dtype != transformer.dtype:
        transformer = transformer.to(dtype)
    return Engine(transformer, scheduler(), slots=slots, **{"rank": RANK} | options)


def texts(count: int, seed: int) -> TextEmbeddings:
    inputs = transformer_inputs(count, seed=seed)
    return TextEmbeddings(inputs["encoder_hidden_states"], inputs["pooled_projections"])


def posterior(count: int, seed: int, size: int = LATENT_SIZE) -> LatentPosterior:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(1, LATENT_CHANNELS, size, size, generator=generator)
    mean = mean + 0.3 * torch.randn(count, LATENT_CHANNELS, size, size, generator=generator)
    return LatentPosterior(mean, torch.full_like(mean, 0.05))


def fine_tune(
    name: str, seed: int = 0, *, size: int = LATENT_SIZE, exemplars: int = 5, **settings: Any
) -> FineTune:
    """A fine-tune whose data follow from ``seed``, with whatever any kind of preservation needs."""
    hyperparameters = HyperParameters(
        **{"rank": 4, "learning_rate": 5e-3, "steps": 50, "seed": seed, **settings}
    )
    return FineTune(
        name=name,
        posterior=posterior(exemplars, 100 + seed, size),
        prompt=texts(1, 200 + seed),
        hyperparameters=hyperparameters,
        guards=texts(3, 300 + seed),
        class_prompt=texts(1, 400 + seed),
        class_posterior=posterior(4, 500 + seed, size),
        mirrored_posterior=posterior(exemplars, 600 + seed, size),
    )


def diverging(task: FineTune) -> FineTune:
    """``task`` with latents so large that its first loss is not finite."""
    return replace(task, posterior=LatentPosterior(task.posterior.mean * 1e25, task.posterior.std))


def train(engine: Engine, *tasks: FineTune) -> dict[str, list[float]]:
    """Runs ``tasks`` to their end, each admitted as soon as a slot is free; the losses of each, both parts in turn."""
    waiting, losses = list(tasks), {}
    while waiting or engine.active:
        while waiting and engine.free_slots:
            engine.admit(waiting.pop(0))
        engine.step()
        for name in engine.finished:
            losses[name] = [
                value
                for report in engine.history(name)
                for value in (report.loss, report.preservation_loss or 0.0)
            ]
            engine.release(name)
    return losses


def save(engine: Engine, folder: Path) -> Path:
    """Saves every fine-tune of the pack in a folder of its name, as a lane does; returns ``folder``."""
    for name in (*engine.active, *engine.finished):
        write_state(engine.state_of(name), folder / name)
        engine.mark_saved(name)
    return folder


def resume(engine: Engine, folder: Path) -> None:
    """Goes on with every fine-tune that :func:`save` saved."""
    for each in sorted(folder.iterdir()):
        resume_state(engine, read_state(each), each)
