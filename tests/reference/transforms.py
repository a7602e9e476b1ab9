"""What the script takes from torchvision, on Pillow: an edge of the world, kept small.

torchvision is no dependency here, and the script wants six transforms of PIL images from it. They follow torchvision's
documentation for PIL input, draw the same random numbers in the same order, and know only what the script asks of
them.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class InterpolationMode(Enum):
    """The one filter that the script names; Pillow's widens with the reduction, so it is antialiased."""

    BILINEAR = Image.Resampling.BILINEAR


class Compose:
    """One transform after another."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self._transforms = transforms

    def __call__(self, image: Any) -> Any:
        for transform in self._transforms:
            image = transform(image)
        return image


class Resize:
    """The shorter side becomes ``size``, the longer keeps the proportion, rounded down."""

    def __init__(self, size: int, interpolation: InterpolationMode) -> None:
        self._size = size
        self._filter = interpolation.value

    def __call__(self, image: Image.Image) -> Image.Image:
        short = min(image.size)
        width, height = (int(self._size * side / short) for side in image.size)
        return image.resize((width, height), self._filter)


class CenterCrop:
    """The square of ``size`` in the middle."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        left, top = (round((side - self._size) / 2.0) for side in image.size)
        return crop(image, top, left, self._size, self._size)


class RandomCrop:
    """A square of ``size`` anywhere; an image of that very size draws nothing."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        return crop(image, *self.get_params(image, (self._size, self._size)))

    @staticmethod
    def get_params(image: Image.Image, output_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Top, left, height and width of the crop."""
        height, width = output_size
        if image.height < height or image.width < width:
            raise ValueError(f"no crop of {width} by {height} in an image of {image.width} by {image.height}")
        if (image.width, image.height) == (width, height):
            return 0, 0, height, width
        top = int(torch.randint(0, image.height - height + 1, (1,)))
        left = int(torch.randint(0, image.width - width + 1, (1,)))
        return top, left, height, width


class RandomHorizontalFlip:
    """Mirrors with probability ``p``."""

    def __init__(self, p: float) -> None:
        self._p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        flip = bool(torch.rand(1) < self._p)
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


class ToTensor:
    """An 8-bit RGB image as float32 ``[3, H, W]`` in 0..1."""

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)


class Normalize:
    """``(x - mean) / std``, one value for all channels or one each."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._mean, self._std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def __call__(self, image: Tensor) -> Tensor:
        return (image - self._mean) / self._std


def crop(image: Image.Image, top: int, left: int, height: int, width: int) -> Image.Image:
    """The rectangle with its corner at ``left``, ``top``."""
    return image.crop((left, top, left + width, top + height))


@contextmanager
def in_place_of_torchvision() -> Iterator[None]:
    """Within the ``with``, ``import torchvision`` finds this module's transforms, installed or not.

    Libraries that look for torchvision themselves must have been imported before.
    """
    package, transforms, functional = (
        _module(name)
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    )
    for kind in (
        CenterCrop,
        Compose,
        InterpolationMode,
        Normalize,
        RandomCrop,
        RandomHorizontalFlip,
        Resize,
        ToTensor,
    ):
        setattr(transforms, kind.__name__, kind)
    functional.__dict__["crop"] = crop
    transforms.__dict__["functional"] = functional
    package.__dict__["transforms"] = transforms
    hidden = {
        module.__name__: sys.modules.get(module.__name__) for module in (package, transforms, functional)
    }
    sys.modules.update({module.__name__: module for module in (package, transforms, functional)})
    try:
        yield
    finally:
        for name, module in hidden.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _module(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, loader=None, is_package=True)
    module.__path__ = []
    return module
