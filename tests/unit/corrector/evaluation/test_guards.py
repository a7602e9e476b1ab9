"""The damage to guard prompts is measured in images lost, without an oracle."""

import pytest
import torch
from torch import Tensor

from corrector.evaluation.guards import Recognised, recognised
from corrector.evaluation.measures import lost_images
from corrector.prompts import GateThresholds
from tests.unit.corrector.evaluation.conftest import SceneFeatures

pytestmark = pytest.mark.xdist_group("scene features")


def drop(found: list[Recognised]) -> float:
    """Share of guard images no longer recognised."""
    return float(torch.cat([k.base for k in found]).mean() - torch.cat([k.corrected for k in found]).mean())


def judged(features: SceneFeatures, corrected: list[Tensor]) -> list[Recognised]:
    base = [guard[:4] for guard in features.guards]
    return recognised(base, corrected, (features.broken, features.true[:16]))


def test_unchanged_guards_are_unharmed(scene_features: list[SceneFeatures]) -> None:
    for features in scene_features:
        found = judged(features, [guard[:4] for guard in features.guards])

        assert drop(found) == 0, features.name
        assert [k.change for k in found] == [0, 0, 0], features.name
        assert all(k.base.mean() >= 0.9 for k in found), f"{features.name} tells the prompts apart"


def test_other_pictures_of_the_same_prompts_are_no_damage(scene_features: list[SceneFeatures]) -> None:
    for features in scene_features:
        found = judged(features, [guard[4:] for guard in features.guards])

        assert drop(found) <= 0.05, features.name
        assert [k.change for k in found] == pytest.approx([1, 1, 1], abs=0.3), features.name


@pytest.mark.parametrize("lost", [1, 2, 4])
def test_guards_that_turn_into_the_corrected_prompt_are_counted(
    scene_features: list[SceneFeatures], lost: int
) -> None:
    for features in scene_features:
        leaked = [torch.cat([features.true[20 : 20 + lost], guard[lost:4]]) for guard in features.guards]

        assert drop(judged(features, leaked)) == pytest.approx(lost / 4, abs=0.05), features.name


def test_guards_that_turn_into_the_anomaly_are_counted(scene_features: list[SceneFeatures]) -> None:
    for features in scene_features:
        anomalous = [features.broken[:4] for _ in features.guards]

        assert drop(judged(features, anomalous)) >= 0.9, features.name


def test_a_single_image_is_compared_with_itself_and_its_change_is_unknown() -> None:
    base, others = torch.tensor([[0.0, 0.0]]), torch.tensor([[4.0, 0.0], [6.0, 0.0]])

    near, far = (recognised([base], [torch.tensor([[x, 0.0]])], [others])[0] for x in (1.0, 4.0))

    assert (float(near.corrected), float(far.corrected)) == (1, 0)
    assert near.change is None


@pytest.mark.parametrize(("min_extractors", "lost"), [(1, 3), (2, 1), (3, 1)])
def test_an_image_is_lost_where_enough_extractors_no_longer_recognise_it(
    min_extractors: int, lost: int
) -> None:
    """Of four images the first is lost in both extractors, two in one of them, and the last was never recognised."""
    before = torch.tensor([1.0, 1, 1, 0])
    one, other = (
        [Recognised(before, torch.tensor(after), None)] for after in ([0.0, 0, 1, 0], [0.0, 1, 0, 0])
    )

    thresholds = GateThresholds(min_extractors=min_extractors)

    assert lost_images({"one": one, "other": other}, thresholds) == [lost]
