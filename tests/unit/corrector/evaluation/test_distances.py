"""The distances equal their references, and the test and the interval say what they claim."""

import warnings
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from corrector.evaluation.distances import compare_frechet, frechet_distance, kernel_distance, relative_mmd
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


def test_the_relative_statistic_is_the_difference_of_the_kernel_distances() -> None:
    base, corrected, reference = normal(9, 6, seed=1) + 1, normal(9, 6, seed=2), normal(5, 6, seed=3)

    result = relative_mmd(base, corrected, reference, permutations=19, seed=0)

    expected = kernel_distance(base, reference) - kernel_distance(corrected, reference)
    assert result.statistic == pytest.approx(expected, rel=1e-9)


def test_the_permutations_swap_the_arms_of_whole_pairs() -> None:
    base, corrected, reference = normal(6, 4, seed=1) + 0.4, normal(6, 4, seed=2), normal(5, 4, seed=3)
    statistic = relative_mmd(base, corrected, reference, permutations=1, seed=0).statistic
    as_large = []
    for swap in product([False, True], repeat=6):
        chosen = torch.tensor(swap)[:, None]
        one, other = torch.where(chosen, corrected, base), torch.where(chosen, base, corrected)
        difference = kernel_distance(one, reference) - kernel_distance(other, reference)
        as_large.append(difference >= statistic - 1e-9)

    p = relative_mmd(base, corrected, reference, permutations=20_000, seed=0).p

    assert p == pytest.approx(sum(as_large) / 64, abs=0.01)


def test_identical_arms_are_no_improvement() -> None:
    arm, reference = normal(16, 8, seed=1), normal(6, 8, seed=2)

    assert relative_mmd(arm, arm, reference, permutations=200, seed=0).p == 1
    compared = compare_frechet(arm, arm, reference, resamples=50, seed=0)
    assert compared.difference == Interval(low=0, value=0, high=0)


@pytest.mark.parametrize(("n", "m"), [(12, 5), (6, 9)])
def test_resamples_in_gram_space_are_distances_of_resampled_rows(n: int, m: int) -> None:
    base, corrected, reference = normal(n, 40, seed=1), normal(n, 40, seed=2) * 0.8, normal(m, 40, seed=3)
    rows = torch.randint(0, n, (30, n), generator=torch.Generator().manual_seed(7))
    direct = torch.tensor(
        [frechet_distance(corrected[r], reference) - frechet_distance(base[r], reference) for r in rows]
    ).double()

    compared = compare_frechet(base, corrected, reference, resamples=30, seed=7)

    expected = direct.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    assert [compared.difference.low, compared.difference.high] == pytest.approx(expected, rel=1e-6)
    assert compared.base.value == pytest.approx(frechet_distance(base, reference))
    assert compared.base.low < compared.base.high


def test_true_scenes_are_told_from_broken_ones(scene_features: list[SceneFeatures]) -> None:
    for found in scene_features:
        base, corrected, held_out = found.broken, found.true[:16], found.true[16:28]
        compared = compare_frechet(base, corrected, held_out, resamples=500, seed=0)

        assert compared.difference.high < 0.5 * compared.difference.value < 0, found.name
        assert relative_mmd(base, corrected, held_out, permutations=2000, seed=0).p < 0.001, found.name


def test_two_arms_of_the_same_scenes_are_not(scene_features: list[SceneFeatures]) -> None:
    repeats, wrong_p, wrong_interval = 40, 0, 0
    generator = torch.Generator().manual_seed(3)
    for found in scene_features:
        for seed in range(repeats // len(scene_features)):
            order = torch.randperm(len(found.true), generator=generator)
            base, corrected, held_out = (found.true[order[a:b]] for a, b in ((0, 16), (16, 32), (32, 40)))
            compared = compare_frechet(base, corrected, held_out, resamples=200, seed=seed)
            wrong_p += relative_mmd(base, corrected, held_out, permutations=500, seed=seed).p < 0.01
            wrong_interval += compared.difference.high < 0

    # At 1 % and 2.5 % a run of 40 has more than 3 and 4 with probabilities of 1e-3 and 4e-3.
    assert wrong_p <= 3
    assert wrong_interval <= 4


def test_a_distance_needs_two_rows_and_pairs() -> None:
    with pytest.raises(ValueError, match="n at least 2"):
        frechet_distance(torch.zeros(1, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="not pairs"):
        relative_mmd(torch.zeros(3, 4), torch.zeros(4, 4), torch.zeros(3, 4), permutations=1, seed=0)
