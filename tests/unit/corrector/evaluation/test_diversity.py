"""Collapse and copying show."""

import pytest
import torch

from corrector.evaluation.diversity import exemplar_spacing, mean_pairwise_distance, nearness
from tests.unit.corrector.evaluation.conftest import SceneFeatures

pytestmark = pytest.mark.xdist_group("scene features")


def test_the_mean_distance_is_over_different_rows() -> None:
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])

    assert mean_pairwise_distance(corners) == pytest.approx((3 + 4 + 5) / 3)


def test_collapse_onto_two_pictures_shows_and_fewer_images_do_not(
    scene_features: list[SceneFeatures],
) -> None:
    for found in scene_features:
        diverse = mean_pairwise_distance(found.true)

        assert mean_pairwise_distance(found.true[:2].repeat(16, 1)) < 0.6 * diverse, found.name
        assert mean_pairwise_distance(found.true[:12]) == pytest.approx(diverse, rel=0.2), found.name


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
        assert nearness(copied, training, held_out, spacing.bound).near >= 0.5, found.name
