"""The distances equal their references, and the interval says what it claims."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from corrector.evaluation.distances import (
    compare_frechet,
    frechet_distance,
    kernel_distance,
    mean_frechet_difference,
)
from corrector.evaluation.scorecard_figures import Interval
from tests.unit.corrector.evaluation.conftest import SceneFeatures

pytestmark = pytest.mark.xdist_group("scene features")


class _Projection(nn.Module):
    """A custom extractor as torchmetrics wants one: images [N, 3, 8, 8] to features [N, 24]."""

    num_features = 24

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(192, 24, seed=5) / 14)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(images.float().flatten(1) @ self.weight.float())


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def projected() -> tuple[_Projection, Tensor, Tensor]:
    projection = _Projection().eval().requires_grad_(False)
    return projection, normal(40, 3, 8, 8, seed=1), normal(40, 3, 8, 8, seed=2) * 1.3 + 0.4


def test_the_frechet_distance_is_that_of_torchmetrics(projected: tuple[_Projection, Tensor, Tensor]) -> None:
    projection, first, second = projected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = FrechetInceptionDistance(feature=projection, normalize=True)
    reference.set_dtype(torch.float64)
    reference.update(first, real=False)
    reference.update(second, real=True)

    distance = frechet_distance(projection(first), projection(second))

    assert distance == pytest.approx(float(reference.compute()), rel=1e-5)


def test_the_frechet_distance_of_few_images_is_that_of_the_covariances() -> None:
    few, others = normal(7, 30, seed=1).double(), (normal(5, 30, seed=2) + 0.5).double()
    roots = torch.linalg.eigvals(few.T.cov() @ others.T.cov()).real.clamp_min(0).sqrt().sum()
    expected = (
        (few.mean(0) - others.mean(0)).square().sum() + few.var(0).sum() + others.var(0).sum() - 2 * roots
    )

    assert frechet_distance(few, others) == pytest.approx(float(expected), rel=1e-6)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)


def test_the_kernel_distance_is_that_of_torchmetrics(projected: tuple[_Projection, Tensor, Tensor]) -> None:
    projection, first, second = projected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = KernelInceptionDistance(feature=projection, subsets=1, subset_size=40, normalize=True)
    reference.update(first, real=False)
    reference.update(second, real=True)

    assert kernel_distance(projection(first), projection(second)) == pytest.approx(
        float(reference.compute()[0]), rel=1e-4
    )


def test_identical_arms_do_not_differ() -> None:
    arm, reference = normal(16, 8, seed=1), normal(6, 8, seed=2)

    compared = compare_frechet(arm, arm, reference, resamples=50, seed=0)

    assert compared.difference == Interval(low=0, value=0, high=0)


@pytest.mark.parametrize(("n", "m"), [(12, 5), (6, 9)])
def test_resamples_in_gram_space_are_distances_of_resampled_pairs_and_exemplars(n: int, m: int) -> None:
    base, corrected, reference = normal(n, 40, seed=1), normal(n, 40, seed=2) * 0.8, normal(m, 40, seed=3)
    generator = torch.Generator().manual_seed(7)
    pairs = torch.randint(0, n, (30, n), generator=generator)
    exemplars = torch.randint(0, m, (30, m), generator=generator)
    direct = torch.tensor(
        [
            frechet_distance(corrected[row], reference[of]) - frechet_distance(base[row], reference[of])
            for row, of in zip(pairs, exemplars, strict=True)
        ]
    ).double()

    compared = compare_frechet(base, corrected, reference, resamples=30, seed=7)

    expected = direct.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    assert [compared.difference.low, compared.difference.high] == pytest.approx(expected, rel=1e-6)
    assert compared.base.value == pytest.approx(frechet_distance(base, reference))
    assert compared.base.low < compared.base.high


def test_the_interval_of_a_mean_over_one_is_that_of_the_one() -> None:
    sets = normal(9, 6, seed=1), normal(9, 6, seed=2), normal(5, 6, seed=3)
    other = normal(9, 6, seed=4), normal(9, 6, seed=5) * 2, normal(5, 6, seed=6)

    one = compare_frechet(*sets, resamples=40, seed=3).difference
    assert mean_frechet_difference([sets], resamples=40, seed=3) == one
    both = mean_frechet_difference([sets, other], resamples=40, seed=3)
    expected = (one.value + compare_frechet(*other, resamples=40, seed=3).difference.value) / 2
    assert both.value == pytest.approx(expected)


def test_true_scenes_are_told_from_broken_ones(scene_features: list[SceneFeatures]) -> None:
    for found in scene_features:
        compared = compare_frechet(found.broken, found.true[:16], found.true[16:28], resamples=500, seed=0)

        assert compared.difference.high < 0.5 * compared.difference.value < 0, found.name


def test_two_arms_of_the_same_scenes_are_not(scene_features: list[SceneFeatures]) -> None:
    wrong = 0
    generator = torch.Generator().manual_seed(3)
    for found in scene_features:
        for seed in range(20):
            order = torch.randperm(len(found.true), generator=generator)
            base, corrected, held_out = (found.true[order[a:b]] for a, b in ((0, 12), (12, 24), (24, 32)))
            compared = compare_frechet(base, corrected, held_out, resamples=200, seed=seed)
            wrong += compared.difference.high < 0

    assert wrong <= 4, "at 2.5 % a run of 40 has more with a probability of 4e-3"


def test_a_distance_needs_two_rows_and_pairs() -> None:
    with pytest.raises(ValueError, match="n at least 2"):
        frechet_distance(torch.zeros(1, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="not pairs"):
        compare_frechet(torch.zeros(3, 4), torch.zeros(4, 4), torch.zeros(3, 4), resamples=20, seed=0)
