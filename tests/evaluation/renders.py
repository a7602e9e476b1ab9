"""Rendered pictures of four scenes, right and wrong in known ways, as the arms of corrections whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from corrector.evaluation.images import as_stored
from tests.support.scenes import pictures
from tests.world.scenes import PLACES, POSES, Scene

SCENES = (
    Scene("person", "lying", "grass"),
    Scene("robot", "jumping", "street"),
    Scene("dog", "sitting", "snow"),
    Scene("cat", "running", "beach"),
)


def graded(images: Tensor) -> Tensor:
    """Warmer, and with less contrast."""
    gain, offset = torch.tensor([1.12, 1.0, 0.82]), torch.tensor([0.03, 0.0, 0.02])
    return as_stored(((images - 0.5) * 0.85 + 0.5) * gain[:, None, None] + offset[:, None, None])


def softened(images: Tensor) -> Tensor:
    """Blurred by a binomial kernel of three pixels."""
    line = torch.tensor([0.25, 0.5, 0.25])
    kernel = (line[:, None] * line)[None, None].expand(3, 1, 3, 3)
    return as_stored(
        functional.conv2d(functional.pad(images, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
    )


STYLES = {"colours": graded, "softness": softened}


@dataclass(frozen=True)
class Pool:
    """Pictures of one scene. Row i of every arm forms pairs with row i of every other.

    Attributes:
        size: Pictures of every arm.
        exemplars: Exemplars.
    """

    scene: Scene
    size: int
    exemplars: int = 64

    @property
    def guard_size(self) -> int:
        """Pictures of every guard prompt, on each side."""
        return min(self.size, 64)

    @cached_property
    def broken(self) -> Tensor:
        return pictures(self.scene, range(self.size), broken=True)

    @cached_property
    def still_broken(self) -> Tensor:
        """Broken again, from other seeds."""
        return pictures(self.scene, range(2000, 2000 + self.size), broken=True)

    @cached_property
    def right(self) -> Tensor:
        return pictures(self.scene, range(1000, 1000 + self.size))

    @cached_property
    def right_before(self) -> Tensor:
        """Right, from other seeds: images that the base drew right already."""
        return pictures(self.scene, range(3000, 3000 + self.size))

    @cached_property
    def elsewhere(self) -> Tensor:
        """Broken, and in another place."""
        place = next(place for place in PLACES if place != self.scene.place)
        scene = Scene(self.scene.subject, self.scene.pose, place)
        return pictures(scene, range(4000, 4000 + self.size), broken=True)

    @cached_property
    def good(self) -> Tensor:
        """Exemplars."""
        return pictures(self.scene, range(5000, 5000 + self.exemplars))

    @property
    def neighbours(self) -> Sequence[Scene]:
        """Five guard prompts: the subject in other poses, and another subject."""
        poses = [pose for pose in POSES[self.scene.subject] if pose != self.scene.pose][:4]
        found = [Scene(self.scene.subject, pose, self.scene.place) for pose in poses]
        other = "dog" if self.scene.subject != "dog" else "cat"
        found += [Scene(other, "lying", self.scene.place), Scene("car", "", self.scene.place)]
        return found[:5]

    @cached_property
    def guards(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Of each neighbour the base's pictures, and others from other seeds."""
        return tuple(
            (
                pictures(scene, range(6000, 6000 + self.guard_size)),
                pictures(scene, range(7000, 7000 + self.guard_size)),
            )
            for scene in self.neighbours
        )
