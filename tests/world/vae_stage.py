"""First stage: train the autoencoder on rendered scenes."""

import logging
import time
from pathlib import Path
from random import Random

import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from tests.world.pictures import draw_batch, held_out
from tests.world.workers import Average, average_gradients, launch, learning_rate, save

logger = logging.getLogger(__name__)

CROP_STEPS = 0.7
"""Fraction of the steps on crops of 32 pixels; whole pictures follow."""


def build_vae() -> AutoencoderKL:
    """An untrained autoencoder: 16 latent channels at a quarter of the resolution, a narrow posterior."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 72),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=12,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        vae.encoder.conv_out.weight[16:].zero_()
        vae.encoder.conv_out.bias[16:].fill_(-6.0)
    return vae


def train_vae(out: Path, steps: int, workers: int = 2, seed: int = 0) -> None:
    """Train to `out/vae.pt`, or go on from there; the finished file holds averaged weights under "ema"."""
    path = out / "vae.pt"
    if not path.exists() or torch.load(path, weights_only=True)["step"] < steps:
        launch(_work, workers, path, steps, seed)
        logger.info("autoencoder: %.1f dB on held-out pictures", reconstruction_db(load_vae(out)))


def load_vae(out: Path) -> AutoencoderKL:
    """The averaged autoencoder of `train_vae`, its latents' shift and scale measured on held-out pictures."""
    vae = build_vae()
    average = Average(vae.parameters())
    average.values = torch.load(out / "vae.pt", weights_only=True)["ema"]
    average.apply()
    vae = vae.eval().requires_grad_(False)
    with torch.no_grad():
        latents = vae.encode(held_out(512)).latent_dist.mean
    vae.register_to_config(
        shift_factor=round(latents.mean().item(), 4), scaling_factor=round(1 / latents.std().item(), 4)
    )
    return vae


@torch.no_grad()
def reconstruction_db(vae: AutoencoderKL, count: int = 128) -> float:
    """Peak signal-to-noise ratio of held-out pictures through the autoencoder, in dB."""
    pictures = held_out(count)
    decoded = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    return (10 * torch.log10(4 / (decoded - pictures).square().mean())).item()


def _work(rank: int, workers: int, path: Path, steps: int, seed: int) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.manual_seed(seed)
    vae = build_vae().train().to(memory_format=torch.channels_last)
    parameters = list(vae.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.99), weight_decay=0.0)
    average = Average(parameters, decay=0.998)
    first = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, first = state["ema"], state["step"]

    def checkpoint(step: int) -> None:
        state = {
            "model": vae.state_dict(),
            "optimizer": optimizer.state_dict(),
            "ema": average.values,
            "step": step,
        }
        save(path, state)

    started, saved = time.monotonic(), time.monotonic()
    for step in range(first, steps):
        whole = step >= CROP_STEPS * steps
        rng = Random(f"vae/{seed}/{rank}/{step}")
        torch.manual_seed(rng.randrange(1 << 40))
        pictures = draw_batch(rng, 8 if whole else 24, 64 if whole else 32)
        loss = _loss(vae, pictures.contiguous(memory_format=torch.channels_last))
        loss.backward()
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps, 2e-3)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(step)
        if rank == 0 and step % 100 == 99:
            logger.info("vae step %d/%d loss %.4f %.0f s", step + 1, steps, loss, time.monotonic() - started)
        if rank == 0 and time.monotonic() - saved > 90:
            checkpoint(step + 1)
            saved = time.monotonic()
    if rank == 0:
        checkpoint(steps)


def _loss(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(pictures).latent_dist
        decoded = vae.decode(posterior.sample()).sample
    decoded = decoded.float()
    error = decoded - pictures
    edges = _edges(decoded, pictures)
    divergence = (
        0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    )
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges + 1e-4 * divergence


def _edges(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    across = functional.l1_loss(one.diff(dim=-1), other.diff(dim=-1))
    down = functional.l1_loss(one.diff(dim=-2), other.diff(dim=-2))
    return across + down
