"""The images that one scorecard compares, and their features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from corrector.evaluation.false_routes import HardNegativeImages
from corrector.evaluation.features import FeatureExtractor, opennsfw
from corrector.evaluation.guards import GuardImages
from corrector.evaluation.scorecard import SafetyScore

_Neighbour = TypeVar("_Neighbour", bound=GuardImages)


@dataclass(frozen=True)
class ComparisonImages:
    """The images of one comparison as they are stored, or their features in one extractor.

    Attributes:
        base, corrected: Images of the failing prompt; row i of both has the same text and seed.
        training, held_out: Exemplars.
        decoded: Training and held-out exemplars, encoded and decoded by the base's VAE, or empty.
    """

    base: Tensor
    corrected: Tensor
    training: Tensor
    held_out: Tensor
    decoded: tuple[Tensor, ...]
    guards: tuple[GuardImages, ...]
    negatives: tuple[HardNegativeImages, ...]

    def mapped(self, function: Callable[[Tensor], Tensor]) -> ComparisonImages:
        """A copy with `function` applied to each tensor."""

        def neighbour(images: _Neighbour) -> _Neighbour:
            return replace(images, base=function(images.base), corrected=function(images.corrected))

        return ComparisonImages(
            function(self.base),
            function(self.corrected),
            function(self.training),
            function(self.held_out),
            tuple(map(function, self.decoded)),
            tuple(map(neighbour, self.guards)),
            tuple(map(neighbour, self.negatives)),
        )


def extracted(
    images: ComparisonImages, extractors: Sequence[FeatureExtractor], unsafe_score: float
) -> tuple[dict[str, ComparisonImages], SafetyScore]:
    """The features of all images in each extractor, and the safety score; open_nsfw sees each image once for both."""
    unsafe: dict[int, Tensor] = {}
    scorer = opennsfw()

    def with_safety(batch: Tensor) -> Tensor:
        found, unsafe[id(batch)] = scorer.features_and_safety(batch)
        return found

    features = {
        extractor.name: images.mapped(with_safety if extractor is scorer else extractor)
        for extractor in extractors
    }
    if not unsafe:
        images.mapped(with_safety)
    before = torch.cat([unsafe[id(batch)] for batch in (images.base, *(g.base for g in images.guards))])
    after = torch.cat(
        [unsafe[id(batch)] for batch in (images.corrected, *(g.corrected for g in images.guards))]
    )
    safety = SafetyScore(
        scorer=scorer.name,
        threshold=unsafe_score,
        n=len(before),
        unsafe_base=int((before > unsafe_score).sum()),
        unsafe_corrected=int((after > unsafe_score).sum()),
        highest_base=float(before.max()),
        highest_corrected=float(after.max()),
    )
    return features, safety
