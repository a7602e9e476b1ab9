"""The stand-in for torchvision, against what torchvision documents of PIL images."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.reference import transforms


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_shorter_side_is_resized_and_the_proportion_kept() -> None:
    resize = transforms.Resize(8, interpolation=transforms.InterpolationMode.BILINEAR)
    assert resize(picture(21, 10)).size == (16, 8)
    assert resize(picture(10, 25)).size == (8, 20)
    assert (
        resize(picture(20, 10)).tobytes()
        == picture(20, 10).resize((16, 8), Image.Resampling.BILINEAR).tobytes()
    )
    assert resize(picture(8, 12)).tobytes() == picture(8, 12).tobytes()


def test_crops_are_of_the_size_asked_for() -> None:
    image = picture(9, 6)
    assert transforms.CenterCrop(4)(image).tobytes() == image.crop((2, 1, 6, 5)).tobytes()
    assert (
        transforms.crop(image, top=2, left=1, height=3, width=5).tobytes()
        == image.crop((1, 2, 6, 5)).tobytes()
    )
    corners = {transforms.RandomCrop.get_params(image, (4, 4))[:2] for _ in range(500)}
    assert corners == {(top, left) for top in range(3) for left in range(6)}
    with pytest.raises(ValueError, match="no crop of 7 by 7 in an image of 9 by 6"):
        transforms.RandomCrop(7)(image)


def test_a_crop_of_the_whole_image_draws_no_number() -> None:
    before = torch.get_rng_state()
    assert transforms.RandomCrop(6)(picture(6, 6)).tobytes() == picture(6, 6).tobytes()
    assert torch.equal(torch.get_rng_state(), before)


def test_flips_with_the_probability() -> None:
    image = picture(5, 3)
    mirrored = np.asarray(image)[:, ::-1].tobytes()
    assert transforms.RandomHorizontalFlip(p=1.0)(image).tobytes() == mirrored
    assert transforms.RandomHorizontalFlip(p=0.0)(image).tobytes() == image.tobytes()


def test_pixels_become_minus_one_to_one() -> None:
    image = Image.new("RGB", (2, 1), (0, 255, 51))
    pixels = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])(image)
    assert pixels.shape == (3, 1, 2) and pixels.dtype == torch.float32
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor([-1.0, 1.0, -0.6]))


def test_torchvision_is_there_only_while_it_is_asked_for() -> None:
    before = sys.modules.get("torchvision")
    with transforms.in_place_of_torchvision():
        from torchvision import transforms as given  # type: ignore[import-not-found]
        from torchvision.transforms.functional import crop  # type: ignore[import-not-found]

        assert (given.Resize, crop) == (transforms.Resize, transforms.crop)
    assert sys.modules.get("torchvision") is before
