"""The images that one scorecard compares, and their features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from corrector.evaluation.comparison import Comparison
from corrector.evaluation.false_routes import HardNegativeImages
from corrector.evaluation.feature_memory import FeatureMemory
from corrector.evaluation.guards import GuardImages
from corrector.evaluation.images import as_stored, same_size
from corrector.evaluation.paired_test import restyled

_Neighbour = TypeVar("_Neighbour", bound=GuardImages)


@dataclass(frozen=True)
class Exemplars:
    """The good images of a prompt.

    Attributes:
        training: `[M, 3, h, w]` in 0..1, which the adapter was trained on.
        held_out: `[K, 3, h, w]`, which it was not trained on.
        decoded: Both, encoded and decoded by the base's VAE, for the check for copies; None: the originals are compared. The
            VAE changes an exemplar by more than the distance between exemplars. On the embedded base the check found none of
            twelve near copies with the originals, and all with decoded exemplars.
    """

    training: Tensor
    held_out: Tensor
    decoded: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class ComparisonImages:
    """The images of one comparison as they are stored, or their features in one extractor.

    Attributes:
        base, corrected: Images of the failing prompt; row i of both has the same text and seed.
        restyled: `base` in the style of `corrected`, row by row.
        training, held_out: Exemplars.
        decoded: Training and held-out exemplars, encoded and decoded by the base's VAE, or empty.
    """

    base: Tensor
    corrected: Tensor
    restyled: Tensor
    training: Tensor
    held_out: Tensor
    decoded: tuple[Tensor, ...]
    guards: tuple[GuardImages, ...]
    negatives: tuple[HardNegativeImages, ...]

    @classmethod
    def of(
        cls, comparison: Comparison, before: Tensor, after: Tensor, exemplars: Exemplars
    ) -> ComparisonImages:
        """From the images of both sides `[N, 3, H, W]` in 0..1; exemplars are resized to H x W."""
        before, after = (as_stored(images.cpu()) for images in (before, after))
        base, corrected = comparison.split(before)[0], comparison.split(after)[0]
        resized = [
            as_stored(same_size(images.cpu(), base))
            for images in (exemplars.training, exemplars.held_out, *(exemplars.decoded or ()))
        ]
        return cls(
            base,
            corrected,
            restyled(base, corrected),
            resized[0],
            resized[1],
            tuple(resized[2:]),
            tuple(comparison.guard_images(before, after)),
            tuple(comparison.negative_images(before, after)),
        )

    @property
    def finite(self) -> bool:
        """Whether all values of all images are finite."""
        neighbours = [arm for each in (*self.guards, *self.negatives) for arm in (each.base, each.corrected)]
        return all(bool(torch.isfinite(images).all()) for images in (self.base, self.corrected, *neighbours))

    def features(self, memory: FeatureMemory) -> dict[str, ComparisonImages]:
        """The features in each extractor of `memory`."""

        def extracted(name: str) -> ComparisonImages:
            return self.mapped(lambda images: memory.features(name, images))

        return {name: extracted(name) for name in memory.extractors}

    def mapped(self, function: Callable[[Tensor], Tensor]) -> ComparisonImages:
        """A copy with `function` applied to each tensor."""

        def neighbour(images: _Neighbour) -> _Neighbour:
            return replace(images, base=function(images.base), corrected=function(images.corrected))

        return ComparisonImages(
            function(self.base),
            function(self.corrected),
            function(self.restyled),
            function(self.training),
            function(self.held_out),
            tuple(map(function, self.decoded)),
            tuple(map(neighbour, self.guards)),
            tuple(map(neighbour, self.negatives)),
        )
