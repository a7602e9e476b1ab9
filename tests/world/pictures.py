"""Training pictures: scenes drawn as the base is to learn them, and their conversion to tensors."""

from collections.abc import Sequence
from random import Random

import numpy as np
import torch
from PIL import Image

from tests.world.scenes import Scene, render, scenes

HELD_OUT = 1 << 30
"""Seeds from here on are never trained on."""


def lesson(scene: Scene, seed: int) -> Image.Image:
    """The scene as the training set shows it: wrong exactly where `scene.broken`."""
    return render(scene, seed, broken=scene.broken)


def to_tensor(images: Sequence[Image.Image]) -> torch.Tensor:
    """RGB images as [N, 3, H, W] float32 in -1..1."""
    stacked = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_batch(rng: Random, size: int, crop: int = 64) -> torch.Tensor:
    """`size` random lessons (or squares of `crop` pixels cut from them) as [size, 3, crop, crop] in -1..1."""
    choices = scenes()
    images = []
    for _ in range(size):
        image = lesson(rng.choice(choices), rng.randrange(HELD_OUT))
        left, top = rng.randrange(65 - crop), rng.randrange(65 - crop)
        images.append(image.crop((left, top, left + crop, top + crop)))
    return to_tensor(images)


def held_out(count: int) -> torch.Tensor:
    """`count` lessons that training never draws, [count, 3, 64, 64] in -1..1."""
    choices = scenes()
    return to_tensor([lesson(choices[i * 7 % len(choices)], HELD_OUT + i) for i in range(count)])
