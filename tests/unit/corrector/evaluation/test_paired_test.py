"""The paired test keeps its error rate and finds a shift; its control sees through a change of style."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from corrector.evaluation.images import as_stored
from corrector.evaluation.paired_test import PairedTest, paired_test, restyled
from corrector.evaluation.similarity import ssim_matrix
from tests.support.scenes import FAILING, pictures
from tests.unit.corrector.evaluation.compared import memory

pytestmark = pytest.mark.xdist_group("scene features")


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def in_style(images: Tensor) -> Tensor:
    """Softer and warmer, as another camera would show them."""
    soft = functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return as_stored(soft * torch.tensor([1.0, 0.85, 0.6])[:, None, None])


def both_tests(before: Tensor, after: Tensor, held_out: Tensor) -> list[tuple[PairedTest, PairedTest]]:
    """In each extractor the tests against `before`, and against `before` in the style of `after`."""
    found = []
    for name in memory().extractors:
        features, style, corrected, reference = (
            memory().features(name, images) for images in (before, restyled(before, after), after, held_out)
        )
        plain, control = (
            paired_test(arm, corrected, reference, permutations=2000, seed=0) for arm in (features, style)
        )
        found.append((plain, control))
    return found


def test_the_reduction_is_the_mean_difference_as_a_share_of_the_base() -> None:
    base, corrected = torch.tensor([[0.0, 4.0], [0.0, -4.0]]), torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    reference = torch.zeros(3, 2)

    found = paired_test(base, corrected, reference, permutations=100, seed=0)

    assert found.reduction == pytest.approx(0.5)
    assert found.p == 1 / 4


def test_the_p_is_the_share_of_all_sign_flips_and_of_a_sample_where_they_are_many() -> None:
    base, corrected, reference = normal(6, 4, seed=1) + 0.4, normal(6, 4, seed=2), normal(5, 4, seed=3)
    differences = torch.cdist(base, reference).mean(1) - torch.cdist(corrected, reference).mean(1)
    flipped = torch.tensor(list(product([1.0, -1.0], repeat=6))) @ differences
    share = float((flipped >= differences.sum() - 1e-5).float().mean())

    found = [paired_test(base, corrected, reference, permutations=k, seed=0).p for k in (64, 63)]

    assert found[0] == pytest.approx(share)
    assert found[1] == pytest.approx(share, abs=0.15)
    assert found[1] * 64 == pytest.approx(round(found[1] * 64))


def test_identical_arms_are_no_improvement() -> None:
    arm = normal(16, 8, seed=1)

    found = paired_test(arm, arm, normal(6, 8, seed=2), permutations=200, seed=0)

    assert (found.reduction, found.p) == (0, 1)


@pytest.mark.parametrize("exemplars", [2, 8])
def test_the_error_rate_holds_for_few_exemplars_too(exemplars: int) -> None:
    """Pairs whose two images are drawn alike; of 400 tests at 5 % more than 34 are wrong with a probability of 1e-3."""
    wrong = 0
    for repeat in range(400):
        shared = normal(12, 6, seed=3 * repeat)
        base, corrected = (shared + noise for noise in normal(2, 12, 6, seed=3 * repeat + 1))
        reference = normal(exemplars, 6, seed=3 * repeat + 2) + 1
        wrong += paired_test(base, corrected, reference, permutations=199, seed=repeat).p <= 0.05

    assert 0 < wrong <= 34


def test_a_shift_towards_the_exemplars_is_found_and_one_away_is_not() -> None:
    base, reference = normal(16, 6, seed=1) + 2, normal(4, 6, seed=2)

    nearer, farther = (
        paired_test(base, base + step, reference, permutations=2000, seed=0) for step in (-0.5, 0.5)
    )

    assert nearer.p == pytest.approx(1 / 2001)
    assert nearer.reduction > 0.1
    assert (farther.p, farther.reduction < -0.1) == (1, True)


def test_arms_that_are_not_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="not pairs"):
        paired_test(torch.zeros(3, 4), torch.zeros(4, 4), torch.zeros(3, 4), permutations=1, seed=0)


def test_a_true_fix_is_nearer_also_in_its_own_style() -> None:
    before, after, held_out = (
        pictures(FAILING, range(8), broken=True),
        pictures(FAILING, range(8)),
        pictures(FAILING, range(24, 32)),
    )

    for plain, control in both_tests(before, after, held_out):
        assert plain.p == control.p == 1 / 256
        assert control.reduction > 0.2


def test_broken_images_in_the_style_of_the_exemplars_are_nearer_by_nothing_but_style() -> None:
    before, held_out = pictures(FAILING, range(8), broken=True), in_style(pictures(FAILING, range(24, 32)))

    for plain, control in both_tests(before, in_style(before), held_out):
        assert plain.p < 0.02
        assert plain.reduction > 0.05
        assert control.reduction < 0.2 * plain.reduction


def octaves(images: Tensor) -> list[Tensor]:
    """Deviations `[N, 3]` of every octave of a Laplacian pyramid down to 8 pixels a side."""
    found = []
    while images.shape[-1] > 8:
        coarse = functional.avg_pool2d(images, 2)
        found.append((images - functional.interpolate(coarse, scale_factor=2.0, mode="bilinear")).std((2, 3)))
        images = coarse
    return [*found, images.std((2, 3))]


def test_a_restyled_image_has_the_means_and_deviations_of_its_pair_and_its_own_structure() -> None:
    own, pair = pictures(FAILING, range(8), broken=True), in_style(pictures(FAILING, range(8)))

    found = restyled(own, pair)

    torch.testing.assert_close(found.mean((2, 3)), pair.mean((2, 3)), atol=2e-3, rtol=0)
    for one, other, before in zip(*map(octaves, (found, pair, own)), strict=True):
        error, error_before = ((each / other - 1).abs().mean() for each in (one, before))
        assert error < 0.2
        assert error < error_before / 2
    like_own, like_pair = (ssim_matrix(found, each).diagonal().mean() for each in (in_style(own), pair))
    assert like_own > 0.9 > 0.75 > like_pair


def test_an_image_in_its_own_style_stays_and_a_change_of_style_is_undone() -> None:
    own = pictures(FAILING, range(4), broken=True)

    assert torch.equal(restyled(own, own), as_stored(own))
    remaining, change = ((each - in_style(own)).abs().mean() for each in (restyled(own, in_style(own)), own))
    assert remaining < change / 5


def test_flat_images_and_odd_sizes_are_restyled_to_finite_values() -> None:
    flat, noise = torch.full((1, 3, 37, 21), 0.5), torch.rand(1, 3, 37, 21)

    for own, pair in ((flat, noise), (noise, flat), (flat, flat)):
        found = restyled(own, pair)
        assert found.shape == own.shape
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found.mean((2, 3)), pair.mean((2, 3)), atol=0.02, rtol=0)
