"""Second stage: train the transformer and the text encoders together by flow matching on cached latents."""

import logging
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.world.pictures import lesson, to_tensor
from tests.world.pipeline import Trainee
from tests.world.scenes import Scene, caption, scenes, shown_colour
from tests.world.vae_stage import load_vae
from tests.world.workers import Average, average_gradients, launch, learning_rate, save

logger = logging.getLogger(__name__)

CACHED = 24_000
"""Pictures in the training set."""

BATCH = 32
"""Pictures per worker and step."""

UNCAPTIONED = 0.1
"""Fraction of the pictures shown with an empty caption, for guidance."""

PEAK_MATRICES = 4e-3
PEAK_REST = 1.5e-3
"""Learning rates of Muon and of AdamW."""


def cached_scene(index: int) -> tuple[Scene, int]:
    """Scene and seed of the training set's picture `index`."""
    choices = scenes()
    return choices[index % len(choices)], index // len(choices)


def cache_latents(out: Path, workers: int = 2) -> None:
    """Write the training set's shifted and scaled latents to `out/latents-*.npy`, float16 [N, 16, 16, 16]."""
    if not all(_shard(out, rank).exists() for rank in range(workers)):
        launch(_encode, workers, out)


def train_transformer(out: Path, steps: int, workers: int = 2, seed: int = 0) -> None:
    """Train to `out/transformer.pt`, or go on from there; `steps` may change on the way (the decay moves)."""
    launch(_work, workers, out, steps, seed)


def load_trainee(out: Path) -> Trainee:
    """The averaged transformer and text encoders of the latest checkpoint."""
    trainee = Trainee.untrained(0)
    average = Average(trainee.parameters())
    average.values = torch.load(out / "transformer.pt", weights_only=True)["ema"]
    average.apply()
    return trainee


def flow_matching_loss(
    trainee: Trainee, latents: torch.Tensor, captions: list[str], offset: float
) -> torch.Tensor:
    """Mean squared error of the predicted velocity noise - latents at logit-normal, stratified times.

    Args:
        latents: [N, 16, 16, 16], shifted and scaled.
        captions: N prompts.
        offset: In 0..1, moves the strata; workers take different ones.
    """
    count = len(latents)
    quantiles = ((torch.randperm(count) + offset) / count).clamp(1e-4, 1 - 1e-4)
    sigmas = torch.sigmoid(torch.special.ndtri(quantiles) * 1.1 + 0.1)[:, None, None, None]
    noise = torch.randn_like(latents)
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        embeds, pooled = trainee.encoders(captions)
        predicted = trainee.transformer(
            hidden_states=(1 - sigmas) * latents + sigmas * noise,
            encoder_hidden_states=embeds,
            pooled_projections=pooled,
            timestep=sigmas.flatten() * 1000,
            return_dict=False,
        )[0]
    return (predicted.float() - (noise - latents)).square().mean()


def optimizers(trainee: Trainee) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer's blocks, AdamW for everything else."""
    matrices = [p for p in trainee.transformer.transformer_blocks.parameters() if p.ndim == 2]
    chosen = {id(matrix) for matrix in matrices}
    rest = [p for p in trainee.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=0.0, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0, foreach=True),
    ]


def _shard(out: Path, rank: int) -> Path:
    return out / f"latents-{rank}.npy"


def _encode(rank: int, workers: int, out: Path) -> None:
    vae = load_vae(out)
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    indices = range(rank, CACHED, workers)
    latents = np.empty((len(indices), 16, 16, 16), np.float16)
    with torch.no_grad():
        for start in range(0, len(indices), 16):
            pictures = to_tensor([lesson(*cached_scene(index)) for index in indices[start : start + 16]])
            means = vae.encode(pictures).latent_dist.mean
            latents[start : start + 16] = ((means - shift) * scale).half().numpy()
    np.save(_shard(out, rank), latents)


def _work(rank: int, workers: int, out: Path, steps: int, seed: int) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    path = out / "transformer.pt"
    shards = [np.load(_shard(out, number), mmap_mode="r") for number in range(workers)]
    trainee = Trainee.untrained(seed)
    trainee.transformer.compile()
    parameters = trainee.parameters()
    solvers = optimizers(trainee)
    average = Average(parameters, decay=0.9985)
    first = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        _restore(parameters, state["parameters"])
        for solver, saved_solver in zip(solvers, state["optimizers"], strict=True):
            solver.load_state_dict(saved_solver)
        average.values, first = state["ema"], state["step"]

    def checkpoint(step: int) -> None:
        values = [parameter.detach() for parameter in parameters]
        solved = [solver.state_dict() for solver in solvers]
        save(path, {"parameters": values, "optimizers": solved, "ema": average.values, "step": step})

    started = saved = time.monotonic()
    losses: list[float] = []
    for step in range(first, steps):
        rng = Random(f"transformer/{seed}/{rank}/{step}")
        torch.manual_seed(rng.randrange(1 << 40))
        latents, captions = _batch(shards, rng)
        loss = flow_matching_loss(trainee, latents, captions, rng.random())
        loss.backward()
        average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for solver, peak in zip(solvers, (PEAK_MATRICES, PEAK_REST), strict=True):
            solver.param_groups[0]["lr"] = learning_rate(step, steps, peak, decay=0.6)
            solver.step()
            solver.zero_grad(set_to_none=True)
        average.update(step)
        losses.append(loss.item())
        if rank == 0 and step % 50 == 49:
            mean = sum(losses[-50:]) / len(losses[-50:])
            logger.info(
                "transformer step %d/%d loss %.4f %.0f s", step + 1, steps, mean, time.monotonic() - started
            )
        if rank == 0 and time.monotonic() - saved > 120:
            checkpoint(step + 1)
            saved = time.monotonic()
    if rank == 0:
        checkpoint(steps)


def _batch(shards: list[np.ndarray], rng: Random) -> tuple[torch.Tensor, list[str]]:
    latents, captions = [], []
    for _ in range(BATCH):
        index = rng.randrange(CACHED)
        scene, seed = cached_scene(index)
        latents.append(shards[index % len(shards)][index // len(shards)])
        captions.append("" if rng.random() < UNCAPTIONED else caption(scene, rng, shown_colour(scene, seed)))
    return torch.from_numpy(np.stack(latents)).float(), captions


@torch.no_grad()
def _restore(parameters: list[nn.Parameter], values: list[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
