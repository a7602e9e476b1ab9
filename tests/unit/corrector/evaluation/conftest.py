"""Features of rendered scenes in each extractor."""

from dataclasses import dataclass

import pytest
from torch import Tensor

from tests.support.scenes import FAILING, GUARDS, pictures
from tests.unit.corrector.evaluation.compared import memory


@dataclass(frozen=True)
class SceneFeatures:
    """Of one extractor: 32 true and 16 broken scenes of the failing prompt, 8 of each guard prompt."""

    name: str
    true: Tensor
    broken: Tensor
    guards: tuple[Tensor, ...]


@pytest.fixture(scope="session")
def scene_features() -> list[SceneFeatures]:
    return [
        SceneFeatures(
            name=name,
            true=memory().features(name, pictures(FAILING, range(32))),
            broken=memory().features(name, pictures(FAILING, range(16), broken=True)),
            guards=tuple(memory().features(name, pictures(scene, range(16, 24))) for scene in GUARDS),
        )
        for name in memory().extractors
    ]
