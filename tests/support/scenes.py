"""Rendered scenes as images, for arms that are known to be right or broken."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from tests.world.scenes import Scene, render

FAILING = Scene("person", "lying", "grass")
GUARDS = (
    Scene("person", "sitting", "grass"),
    Scene("person", "jumping", "grass"),
    Scene("dog", "running", "grass"),
)


def pictures(scene: Scene, seeds: Iterable[int], broken: bool = False) -> Tensor:
    """Renders `[N, 3, 64, 64]` in 0..1, one for each seed."""
    rendered = [np.array(render(scene, seed, broken=broken)) for seed in seeds]
    return torch.from_numpy(np.stack(rendered)).permute(0, 3, 1, 2).float() / 255
