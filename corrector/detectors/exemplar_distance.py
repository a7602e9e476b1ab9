"""ExemplarDistance: an image is suspect if it is farther from a prompt's exemplars than they are from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from corrector.detectors.detector import Detector, Finding
from corrector.evaluation.feature_memory import FeatureMemory
from corrector.evaluation.features import torch_threads

MIN_EXEMPLARS = 8
"""With fewer, the spread among them says little."""
QUANTILE = 0.95
"""Of the exemplars' distances to their nearest other exemplar: the largest distance at which an image is right."""


class ExemplarDistance(Detector):
    """Distance of an image to the nearest exemplar, in the feature spaces of `memory`, over a limit from the exemplars.

    The limit is the quantile of the exemplars' own distances to their nearest other exemplar (leave-one-out). The score is
    the mean over the feature spaces of distance / limit; above 1 the image is suspect.

    It knows nothing of anatomy, and exemplars of another style than the base's make all images suspect. Measured with 24
    exemplars a prompt on the embedded base: 8 of 8 renders of "a person lying on the grass" were right (scores 0.66 to 0.94)
    and 8 of 8 broken images of the base suspect (2.5 to 2.8), but 8 of 8 sound images of a tree, too (1.8 to 2.3).
    """

    name = "exemplar-distance"

    def __init__(self, exemplars: Mapping[str, Tensor], memory: FeatureMemory) -> None:
        """`exemplars`: prompt -> images `[N, 3, H, W]` in 0..1."""
        self._exemplars, self._memory = exemplars, memory
        self._limits: dict[str, list[tuple[str, Tensor, float]]] = {}

    def lacks(self, prompt: str) -> str | None:
        count = len(self._exemplars.get(prompt, ()))
        return None if count >= MIN_EXEMPLARS else f"needs {MIN_EXEMPLARS} exemplars and has {count}"

    def judge(self, images: Tensor, prompts: Sequence[str]) -> list[Finding]:
        self._memory.recall(images)
        with torch_threads(1), torch.inference_mode():
            found = [
                self._finding(image[None], prompt) for image, prompt in zip(images, prompts, strict=True)
            ]
        self._memory.keep(images)
        return found

    def _finding(self, image: Tensor, prompt: str) -> Finding:
        ratios = []
        for extractor, exemplars, limit in self._limits_of(prompt):
            features = normalize(self._memory.features(extractor, image), dim=1)
            ratios.append(float(torch.cdist(features, exemplars).min()) / limit)
        score = sum(ratios) / len(ratios)
        note = f"{score:.2f} times as far from the exemplars as they may be from each other"
        return Finding(score <= 1, note, score)

    def _limits_of(self, prompt: str) -> list[tuple[str, Tensor, float]]:
        """For each feature space: its name, the exemplars' features of length 1, and the limit."""
        if prompt not in self._limits:
            found = []
            for name in self._memory.extractors:
                features = normalize(self._memory.features(name, self._exemplars[prompt]), dim=1)
                nearest = torch.cdist(features, features).fill_diagonal_(torch.inf).min(dim=1).values
                found.append((name, features, max(float(nearest.quantile(QUANTILE)), 1e-6)))
            self._limits[prompt] = found
        return self._limits[prompt]
