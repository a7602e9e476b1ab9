"""One resize for training and evaluation."""

import numpy as np
import pytest
import torch
from PIL import Image

from corrector.exemplars.fit import fit, to_image, to_tensor
from tests.support.paths import PAPER
from tests.support.pictures import drawn


def test_a_wide_and_a_tall_picture_keep_their_centre() -> None:
    square = drawn(64, 64)
    for size, corner in (((96, 64), (16, 0)), ((64, 99), (0, 17))):
        framed = Image.new("RGB", size, (255, 0, 255))
        framed.paste(square, corner)
        assert fit(framed, 64).tobytes() == square.tobytes()


def test_it_is_pillows_lanczos_on_the_centred_square() -> None:
    image = drawn(150, 100)
    reference = image.crop((25, 0, 125, 100)).resize((32, 32), Image.Resampling.LANCZOS)
    assert fit(image, 32).tobytes() == reference.tobytes()


def test_reduction_is_antialiased() -> None:
    stripes = Image.fromarray(np.tile(np.array([[0, 255]], dtype=np.uint8), (256, 128)))
    reduced = np.asarray(fit(stripes, 32))
    assert np.abs(reduced[4:-4, 4:-4].astype(int) - 127).max() <= 3


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    assert fit(drawn(64, 64), 64).tobytes() == drawn(64, 64).tobytes()


def test_a_line_of_a_picture_is_not_blown_up_on_the_way() -> None:
    line = Image.new("RGB", (2_000_000, 1), (10, 200, 30))
    assert fit(line, 512).getcolors() == [(512 * 512, (10, 200, 30))]


def test_tensors_and_images_are_each_others_inverse() -> None:
    tensor = to_tensor(drawn())
    assert tensor.shape == (3, 64, 96)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert to_tensor(Image.new("RGB", (2, 2), (220, 40, 30)))[:, 0, 0].tolist() == pytest.approx(
        [220 / 255, 40 / 255, 30 / 255]
    )
    assert to_image(tensor).tobytes() == drawn().tobytes()
    assert to_image(tensor.half()).tobytes() == drawn().tobytes()


def test_values_outside_the_range_are_clamped() -> None:
    values = torch.tensor([-1.0, 2.0, float("nan")]).reshape(3, 1, 1)
    assert to_image(values).getpixel((0, 0)) == (0, 255, 0)


def test_the_papers_exemplars_are_resized_as_its_figures_were() -> None:
    exemplars = sorted((PAPER / "exemplars").glob("*.jpeg"))
    if not exemplars:
        pytest.skip(f"the paper's images are not at {PAPER} (set CORRECTOR_PAPER_IMAGES)")
    with Image.open(exemplars[0]) as image:
        reference = image.convert("RGB").resize((512, 512), Image.Resampling.LANCZOS)
        assert fit(image, 512).tobytes() == reference.tobytes()
