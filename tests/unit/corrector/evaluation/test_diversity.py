"""Collapse and copying show."""

import pytest
import torch
from torch import Tensor

from corrector.evaluation.diversity import (
    exemplar_spacing,
    nearest_other,
    nearness,
    training_preference,
)
from tests.unit.corrector.evaluation.conftest import SceneFeatures

pytestmark = pytest.mark.xdist_group("scene features")


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def preference(features: Tensor, training: Tensor, held_out: Tensor, permutations: int = 2000) -> float:
    return training_preference(features, training, held_out, permutations=permutations, seed=0)


def test_diversity_is_the_median_distance_to_the_nearest_other_image() -> None:
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])

    assert nearest_other(corners) == 3
    assert nearest_other(corners[:2].repeat(4, 1)) == 0


def test_collapse_onto_two_pictures_shows_and_other_scenes_are_as_diverse(
    scene_features: list[SceneFeatures],
) -> None:
    for found in scene_features:
        diverse = nearest_other(found.true[:16])

        assert nearest_other(found.true[:2].repeat(8, 1)) == pytest.approx(0, abs=1e-3), found.name
        assert nearest_other(found.true[16:32]) == pytest.approx(diverse, rel=0.25), found.name


def test_the_spacing_is_to_the_nearest_other_training_exemplar() -> None:
    training, held_out = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[5.5], [9.0]])

    spacing = exemplar_spacing(training, held_out, percentile=100)

    assert spacing.bound == 0.5
    assert spacing.median == 1.0
    assert exemplar_spacing(training, held_out, percentile=50).bound == 1.0


def test_nearness_counts_copies_and_tells_training_from_held_out() -> None:
    training, held_out = torch.tensor([[0.0], [10.0]]), torch.tensor([[5.0]])

    found = nearness(torch.tensor([[0.1], [4.0], [9.0], [7.0]]), training, held_out, bound=0.5)

    assert found.near == 0.25
    assert found.training == 0.5
    assert found.median == pytest.approx(1.0)


def test_copies_of_training_exemplars_are_found_and_new_scenes_are_not(
    scene_features: list[SceneFeatures],
) -> None:
    for found in scene_features:
        training, held_out, fresh = found.true[:8], found.true[8:16], found.true[16:]
        spacing = exemplar_spacing(training, held_out, percentile=95)
        copied = torch.cat([fresh[:8], training])

        assert nearness(fresh, training, held_out, spacing.bound).near <= 1 / 3, found.name
        assert preference(fresh, training, held_out) > 0.05, found.name
        assert nearness(copied, training, held_out, spacing.bound).near >= 0.5, found.name
        assert preference(copied, training, held_out) < 0.01, found.name


@pytest.mark.parametrize(("m", "k", "choices"), [(4, 4, 70), (3, 3, 20), (3, 2, 10), (2, 2, 6)])
def test_the_smallest_p_is_one_over_the_choices_of_training_exemplars(m: int, k: int, choices: int) -> None:
    training, held_out = normal(m, 5, seed=1), normal(k, 5, seed=2)

    p = preference(training.repeat(3, 1), training, held_out, permutations=20_000)

    assert p == pytest.approx(1 / choices, rel=0.1)


def test_images_that_have_not_seen_the_exemplars_prefer_neither() -> None:
    """Of 200 tests at 5 % more than 21 are wrong with a probability of 1e-3."""
    wrong = 0
    for repeat in range(200):
        exemplars, images = normal(8, 6, seed=2 * repeat), normal(12, 6, seed=2 * repeat + 1)
        wrong += preference(images, exemplars[:4], exemplars[4:], permutations=400) <= 0.05

    assert 0 < wrong <= 21
