"""SSIM and PSNR equal torchmetrics' pair by pair, and reproduce the figures of the paper's images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from corrector.evaluation.similarity import (
    MAX_PSNR,
    grey,
    inside_set,
    over_all_pairs,
    over_best_exemplar,
    psnr_matrix,
    ssim_matrix,
)
from tests.support.paths import PAPER
from tests.support.scenes import FAILING, pictures


@pytest.fixture(scope="module")
def sets() -> tuple[Tensor, Tensor]:
    return pictures(FAILING, range(5), broken=True), pictures(FAILING, range(10, 13))


def test_every_pair_scores_the_ssim_of_torchmetrics(sets: tuple[Tensor, Tensor]) -> None:
    first, second = sets

    scores = ssim_matrix(first, second)

    assert scores.shape == (5, 3)
    for i, j in ((0, 0), (4, 1), (2, 2)):
        expected = structural_similarity_index_measure(
            grey(first[i : i + 1]), grey(second[j : j + 1]), data_range=1.0
        )
        assert isinstance(expected, Tensor)
        assert float(scores[i, j]) == pytest.approx(float(expected), abs=2e-5)


def test_every_pair_scores_the_psnr_of_torchmetrics_on_its_own(sets: tuple[Tensor, Tensor]) -> None:
    first, second = sets
    expected = peak_signal_noise_ratio(
        first[:, None].expand(-1, 3, -1, -1, -1).flatten(0, 1),
        second[None].expand(5, -1, -1, -1, -1).flatten(0, 1),
        data_range=1.0,
        dim=(1, 2, 3),
        reduction="none",
    )

    torch.testing.assert_close(psnr_matrix(first, second), expected.reshape(5, 3), atol=1e-4, rtol=0)


def test_an_image_is_itself() -> None:
    image = pictures(FAILING, [1])

    assert float(ssim_matrix(image, image)) == pytest.approx(1, abs=1e-5)
    assert float(psnr_matrix(image, image)) == pytest.approx(MAX_PSNR, abs=1)


def test_the_pairings_are_what_they_are_called() -> None:
    scores = torch.tensor([[1.0, 0.2, 0.6], [0.2, 1.0, 0.4], [0.6, 0.4, 1.0]])

    assert over_all_pairs(scores) == pytest.approx(0.6)
    assert over_best_exemplar(scores) == pytest.approx(1.0)
    assert inside_set(scores) == pytest.approx(0.4)


def test_images_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 11 a side"):
        ssim_matrix(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def decoded(file: Path) -> Tensor:
    """An image `[3, 512, 512]` in 0..1, resized by Pillow's Lanczos as the paper's figures were."""
    with Image.open(file) as image:
        pixels = np.array(image.convert("RGB").resize((512, 512), Image.Resampling.LANCZOS))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def paper() -> dict[str, Tensor]:
    """The paper's five exemplars, base and corrected outputs `[5, 3, 512, 512]`."""
    folders = {name: sorted((PAPER / name).glob("*")) for name in ("exemplars", "base", "corrected")}
    if not all(len(files) == 5 for files in folders.values()):
        pytest.skip(f"the paper's images are not at {PAPER}; CORRECTOR_PAPER_IMAGES names their folder")
    return {name: torch.stack([decoded(file) for file in files]) for name, files in folders.items()}


@pytest.fixture(scope="module")
def to_exemplars(paper: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """SSIM and PSNR to the exemplars, each `[5, 5]`, of both arms and of images of the base's mean colours."""
    flat = paper["base"].mean(dim=(2, 3), keepdim=True).expand_as(paper["base"])
    arms = {"base": paper["base"], "corrected": paper["corrected"], "flat": flat}
    return {
        name: (ssim_matrix(images, paper["exemplars"]), psnr_matrix(images, paper["exemplars"]))
        for name, images in arms.items()
    }


@pytest.mark.parametrize(
    ("arm", "ssim", "ssim_best", "psnr", "psnr_best", "inside"),
    [("base", 0.140, 0.168, 8.91, 9.20, 0.127), ("corrected", 0.175, 0.220, 8.55, 9.17, 0.212)],
)
def test_the_papers_figures_are_reproduced(
    paper: dict[str, Tensor],
    to_exemplars: dict[str, tuple[Tensor, Tensor]],
    arm: str,
    ssim: float,
    ssim_best: float,
    psnr: float,
    psnr_best: float,
    inside: float,
) -> None:
    similarity, decibels = to_exemplars[arm]

    assert over_all_pairs(similarity) == pytest.approx(ssim, abs=1e-3)
    assert over_best_exemplar(similarity) == pytest.approx(ssim_best, abs=1e-3)
    assert inside_set(ssim_matrix(paper[arm], paper[arm])) == pytest.approx(inside, abs=1e-3)
    # Two decimals are printed, so 5e-3 beside the 1e-3.
    assert over_all_pairs(decibels) == pytest.approx(psnr, abs=6e-3)
    assert over_best_exemplar(decibels) == pytest.approx(psnr_best, abs=6e-3)


def test_a_flat_image_beats_the_real_outputs_so_similarity_gates_nothing(
    to_exemplars: dict[str, tuple[Tensor, Tensor]],
) -> None:
    for measure in (0, 1):
        flat, *real = (over_all_pairs(to_exemplars[arm][measure]) for arm in ("flat", "base", "corrected"))
        assert flat > max(real)
