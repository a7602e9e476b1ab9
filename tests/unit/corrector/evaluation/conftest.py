"""Features of rendered scenes, extracted once: the extractors are what takes time."""

from dataclasses import dataclass

import pytest
from torch import Tensor

from corrector.evaluation import default_extractors
from corrector.evaluation.features import torch_threads
from tests.support.scenes import FAILING, GUARDS, pictures


@dataclass(frozen=True)
class SceneFeatures:
    """Of one extractor: 40 true and 16 broken scenes of the failing prompt, 8 of each guard prompt."""

    name: str
    true: Tensor
    broken: Tensor
    guards: tuple[Tensor, ...]


@pytest.fixture(scope="session")
def scene_features() -> list[SceneFeatures]:
    with torch_threads(1):
        return [
            SceneFeatures(
                name=extractor.name,
                true=extractor(pictures(FAILING, range(40))),
                broken=extractor(pictures(FAILING, range(16), broken=True)),
                guards=tuple(extractor(pictures(scene, range(8))) for scene in GUARDS),
            )
            for extractor in default_extractors()
        ]
