"""Images reach every metric by one path."""

import numpy as np
import pytest
import torch
from PIL import Image

from corrector.evaluation.images import as_stored, resized, same_size
from tests.support.scenes import FAILING, pictures


@pytest.mark.parametrize("side", [24, 224])
def test_images_in_memory_are_resized_by_pillows_antialiased_bicubic(side: int) -> None:
    images = as_stored(0.3 + 0.4 * pictures(FAILING, [0]))
    stored = Image.fromarray((images[0].permute(1, 2, 0).numpy() * 255).round().astype("uint8"))
    expected = torch.from_numpy(np.asarray(stored.resize((side, side), Image.Resampling.BICUBIC)).copy())

    difference = (resized(images, side)[0].permute(1, 2, 0) * 255 - expected).abs()

    assert float(difference.max()) < 2, "Pillow rounds to 8 bits after each direction"


def test_a_score_is_that_of_the_stored_file() -> None:
    images = torch.tensor([0.1, 0.5004, 1.2, -0.3]).view(1, 1, 2, 2).expand(1, 3, 2, 2)

    stored = as_stored(images)

    assert torch.equal(stored, as_stored(stored))
    assert (stored[0, 0].flatten() * 255).round().tolist() == [26, 128, 255, 0]


def test_sets_of_other_sizes_are_brought_to_the_arms() -> None:
    large, arm = torch.rand(2, 3, 80, 96), torch.rand(4, 3, 32, 48)

    assert same_size(large, arm).shape == (2, 3, 32, 48)
    assert same_size(arm, arm) is arm
