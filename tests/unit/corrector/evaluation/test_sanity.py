"""What is no picture is named."""

import pytest
import torch
from torch import Tensor

from corrector.evaluation.sanity import faults, neighbour_correlation
from corrector.evaluation.similarity import grey
from tests.support.scenes import FAILING, GUARDS, pictures

NOISE = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))


def found(images: Tensor) -> list[str | None]:
    return faults(images, min_contrast=0.02, min_correlation=0.3)


def test_scenes_true_and_broken_are_pictures() -> None:
    images = torch.cat(
        [pictures(FAILING, range(4), broken=True), *(pictures(scene, range(2)) for scene in GUARDS)]
    )

    assert found(images) == [None] * 10
    assert min(neighbour_correlation(luma) for luma in grey(images)[:, 0]) > 0.8


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (torch.full((1, 3, 64, 64), torch.nan), "not finite"),
        (torch.full((1, 3, 64, 64), 0.4), "is flat"),
        (torch.full((1, 3, 64, 64), 0.4) + 0.01 * NOISE, "is flat"),
        (NOISE, "is noise"),
        (3 * NOISE, "leaves 0..1"),
    ],
)
def test_what_is_no_picture_says_why(image: Tensor, fault: str) -> None:
    (problem,) = found(image)

    assert problem is not None
    assert fault in problem
