"""Train the oracle on renders: `python -m tests.oracle.train [--vae DIR]`, a few minutes of one core.

Half of the pictures are wrong in one of the ways of `corruptions`. All are jittered, blurred and noised,
and a part is passed through the embedded base's autoencoder with noise on the latents, so that the base's
own samples are on the oracle's distribution.
"""

import argparse
from pathlib import Path
from random import Random

import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from tests.oracle.corruptions import corrupt
from tests.oracle.oracle import POSES, WEIGHTS, Network
from tests.world.pictures import HELD_OUT, to_tensor
from tests.world.scenes import PLACES, SUBJECTS, render, scenes

HEADS = ("subject", "pose", "place", "intact")
BATCH = 64
ROUND_TRIPS = 12
"""Pictures of a batch that go through the autoencoder."""


def train(steps: int, vae: AutoencoderKL, seed: int = 0) -> Network:
    """A network trained for `steps` batches."""
    torch.manual_seed(seed)
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        images, labels = examples(Random(f"oracle/{seed}/{step}"), BATCH, 0)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(augmented(images, vae))
        loss = torch.stack([_loss(logits[name].float(), labels[name]) for name in HEADS]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}/{steps} loss {loss.item():.3f}", flush=True)
    return network.eval()


def examples(rng: Random, count: int, first_seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Pictures [count, 3, 64, 64] in 0..1, half with wrong anatomy, and labels by head (-100: not judged)."""
    images: list[Image.Image] = []
    labels: dict[str, list[int]] = {name: [] for name in HEADS}
    choices = scenes()
    for _ in range(count):
        scene, seed = rng.choice(choices), first_seed + rng.randrange(HELD_OUT)
        intact = rng.random() < 0.5
        images.append(render(scene, seed) if intact else corrupt(scene, seed, rng))
        labels["subject"].append(SUBJECTS.index(scene.subject) if intact or scene.pose else -100)
        labels["pose"].append(POSES.index(scene.pose) if intact else -100)
        labels["place"].append(PLACES.index(scene.place))
        labels["intact"].append(int(intact))
    return to_tensor(images) / 2 + 0.5, {name: torch.tensor(values) for name, values in labels.items()}


@torch.no_grad()
def augmented(images: torch.Tensor, vae: AutoencoderKL) -> torch.Tensor:
    """The images through the autoencoder (some), a small affine jitter, a blur and noise."""
    images = images.clone()
    latents = vae.encode(images[:ROUND_TRIPS] * 2 - 1).latent_dist.mean
    strength = torch.rand(len(latents), 1, 1, 1) * 0.3 / vae.config.scaling_factor
    images[:ROUND_TRIPS] = vae.decode(latents + strength * torch.randn_like(latents)).sample / 2 + 0.5
    count = len(images)
    angle = (torch.rand(count) - 0.5) * 0.12
    scale = 1 + (torch.rand(count) - 0.5) * 0.12
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1) * scale[:, None]
    shift = (torch.rand(count, 2, 1) - 0.5) * 0.1
    grid = functional.affine_grid(
        torch.cat([turn.view(count, 2, 2), shift], 2), list(images.shape), align_corners=False
    )
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    amount = torch.rand(count, 1, 1, 1) * (torch.rand(count, 1, 1, 1) < 0.5)
    soft = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = images + amount * (soft - images)
    contrast = 1 + (torch.rand(count, 1, 1, 1) - 0.5) * 0.2
    noise = torch.randn_like(images) * torch.rand(count, 1, 1, 1) * 0.04
    return ((images - 0.5) * contrast + 0.5 + noise).clamp(0, 1)


@torch.no_grad()
def accuracy(network: Network, vae: AutoencoderKL, count: int = 2048) -> dict[str, float]:
    """The fraction of right answers of each head on held-out, augmented pictures."""
    right = dict.fromkeys(HEADS, 0)
    judged = dict.fromkeys(HEADS, 0)
    torch.manual_seed(1)
    for start in range(0, count, BATCH):
        images, labels = examples(Random(f"held out/{start}"), BATCH, HELD_OUT)
        logits = network(augmented(images, vae))
        for name in HEADS:
            asked = labels[name] >= 0
            right[name] += int((logits[name].argmax(1) == labels[name])[asked].sum())
            judged[name] += int(asked.sum())
    return {name: right[name] / judged[name] for name in HEADS}


def main() -> None:
    """Train, print the held-out accuracies, and write the weights beside the oracle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, default=Path("corrector/base/embedded/weights/vae"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(options.vae, torch_dtype=torch.float32).eval()
    network = train(options.steps, vae)
    halves = {name: value.half() for name, value in network.state_dict().items() if value.is_floating_point()}
    save_file({name: value.contiguous() for name, value in halves.items()}, options.out)
    network.load_state_dict({name: value.float() for name, value in halves.items()}, strict=False)
    print(" ".join(f"{name} {rate:.2%}" for name, rate in accuracy(network, vae).items()))


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, labels, label_smoothing=0.02)


if __name__ == "__main__":
    main()
